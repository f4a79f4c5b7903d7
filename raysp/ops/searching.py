"""Transcripts by beam search over the frames of CTC models; times of words and characters as for greedy decoding."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from raysp.checkpoints.language_models import open_model, weighed
from raysp.crossing import fetch, send
from raysp.errors import CheckpointError
from raysp.models.base.capabilities import Capability
from raysp.models.tokenizers.written import CTCTokenizer
from raysp.ops.labelling import Forward
from raysp.ops.speech.places import Stretch, stretches
from raysp.ops.transcribing import StretchText, Transcribing, flat, in_a_row, list_lengths
from raysp.text.beams.decoder import BeamDecoder, Extras
from raysp.text.beams.search import Hypothesis, TopFrames, top_frames
from raysp.text.beams.tokens import TokenTexts, misfit, unwritable

SPACES = re.compile(" {2,}")


class Searching:
    """Op for the best texts of each recording.

    For a window of a longer row it stages the best tokens of each frame that the window owns. `join` decodes the frames
    of all windows, with the same arithmetic.

    Args:
        greedy: op that writes the columns of the best text; its schema may end with the column of n-best texts.
        vocab_size: tokens of the model.
        beams: prefixes that are kept after each frame.
        nbest: texts of a recording; the column exists if it is above 1.
        lm: local path of a language model, or of the folder of one that comes with a checkpoint; None: none.
        lm_weight: factor of its natural log-probabilities; None: that of the checkpoint, or the usual one.
        word_bonus: added for each of its words; None: as `lm_weight`.
        hot_words: weights of words and phrases.
        device: device of the frames.
    """

    layers: tuple[int, ...] = ()

    def __init__(
        self,
        greedy: Transcribing,
        *,
        vocab_size: int,
        beams: int,
        nbest: int = 1,
        lm: str | None = None,
        lm_weight: float | None = None,
        word_bonus: float | None = None,
        hot_words: Mapping[str, float] | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.greedy = greedy
        self.schema: pa.Schema = greedy.schema
        self.staged: pa.Schema = greedy.staged
        self.blank = greedy.blank
        self.nbest = nbest
        self.beams = beams
        ids = {tuple(greedy.tokenizer.ids_of_written(text)): weight for text, weight in (hot_words or {}).items()}
        extras = Extras(hot_words=ids)
        if lm is not None:
            own, file, weights = weighed(lm, lm_weight, word_bonus)
            extras = Extras(open_model(file), own.words() if own else None, weights, ids)
        tokens = token_texts(greedy.tokenizer, vocab_size)
        self.decoder = BeamDecoder(tokens, beams=beams, extras=extras, device=device)

    def __call__(self, forward: Forward) -> list[Sequence[object]]:
        """Return the columns of `schema`, then those of `staged`, one value per window."""
        frames = top_frames(forward.of(Capability.CTC)["logits"], blank=self.blank)
        is_part = [part is not None for part in forward.parts]
        # The text of a part alone is not used, so its frames are masked out.
        num_frames = [0 if part else count for part, count in zip(is_part, forward.lengths.frames, strict=True)]
        found, _ = self._columns(frames, num_frames)
        columns: list[Sequence[object]] = [
            [None if part else value for part, value in zip(is_part, column, strict=True)] for column in found
        ]
        return [*columns, *self._staged(frames, forward.parts)]

    def empty(self) -> tuple[object, ...]:
        """Return the values of a recording shorter than one frame: an empty text without a score."""
        return self.greedy.empty()

    def join(self, windows: pa.Table) -> tuple[object, ...]:
        """Return the columns of `schema` of one row, from the `staged` columns of its windows in order."""
        found = [self._of_stretch(stretch) for stretch in stretches(windows, self._num_frames(windows))]
        spans = len(self.schema) - (self.nbest > 1)
        joined = in_a_row([one for one, _ in found], spans)
        return joined if self.nbest == 1 else (*joined, self._best([one for _, one in found]))

    def _num_frames(self, windows: pa.Table) -> list[int]:
        """Return the number of frames of each window, which stages a value more of each than tokens."""
        ids, log_probs = (list_lengths(windows, name) for name in self.staged.names)
        return [one - other for one, other in zip(log_probs, ids, strict=True)]

    def _of_stretch(self, stretch: Stretch) -> tuple[StretchText, list[dict[str, object]]]:
        """Return the columns of a stretch, and its n-best texts."""
        ids, log_probs = (flat(stretch.windows.column(name)) for name in self.staged.names)
        num_frames = len(log_probs) - len(ids)
        log_probs = log_probs.reshape(num_frames, -1)
        tokens = ids.reshape(num_frames, -1) if num_frames else np.zeros((0, 1), np.int32)
        values = log_probs if num_frames else np.zeros((0, 2), np.float32)
        parts = values[None, :, 0], tokens[None].astype(np.int64), values[None, :, 1:]
        frames = TopFrames(*send(torch.device(self.decoder.device), *parts))
        columns, counts = self._columns(frames, [num_frames])
        row = tuple(column[0] for column in columns)
        start = stretch.frame * self.greedy.frame_seconds
        nbest = cast("list[dict[str, object]]", row[-1]) if self.nbest > 1 else []
        return StretchText(row, int(counts[0]), start), nbest

    def _best(self, parts: Sequence[Sequence[dict[str, Any]]]) -> list[dict[str, object]]:
        """Return the best texts of a row, of which each is made of one text of each stretch."""
        best: list[tuple[str, float]] = [("", 0.0)]
        for texts in (one for one in parts if one):
            both = [
                (" ".join(filter(None, (text, one["text"]))), score + one["score"])
                for text, score in best
                for one in texts
            ]
            best = list(_once(sorted(both, key=lambda one: -one[1])).items())[: self.nbest]
        return [{"text": text, "score": score} for text, score in best]

    def _staged(self, frames: TopFrames, parts: Sequence[tuple[int, int] | None]) -> list[list[object]]:
        """Return for each window its tokens, and the log-probabilities of the blank and of these tokens, by frame."""
        if not any(part is not None for part in parts):
            return [[None] * len(parts) for _ in self.staged]
        ids, log_probs = fetch(frames.ids.int(), torch.cat([frames.blanks[..., None], frames.log_probs], -1))
        return [
            [None if part is None else row[slice(*part)].ravel() for part, row in zip(parts, values, strict=True)]
            for values in (ids, log_probs)
        ]

    def _columns(
        self, frames: TopFrames, counts: Sequence[int]
    ) -> tuple[list[Sequence[object]], npt.NDArray[np.int64]]:
        """Return the columns of `schema`, and the number of tokens of each text."""
        [num_frames] = send(frames.blanks.device, np.array(counts, np.int64))
        hypotheses = self.decoder(frames, num_frames, best=self.beams if self.nbest > 1 else 1)
        tokens = self.decoder.aligned(frames, num_frames, [row[0] for row in hypotheses])
        columns = self.greedy.columns(tokens)
        columns[0] = [_with_single_spaces(str(text)) for text in columns[0]]
        if self.nbest > 1:
            columns.append([self._different(row) for row in hypotheses])
        return columns, tokens.counts

    def _different(self, hypotheses: Iterable[Hypothesis]) -> list[dict[str, object]]:
        """Return the best different texts; of equal ones, such as with another number of spaces, the best score."""
        decode = self.greedy.tokenizer.decode_collapsed
        scores = _once((_with_single_spaces(decode(one.ids.tolist())), one.score) for one in hypotheses)
        return [{"text": text, "score": score} for text, score in list(scores.items())[: self.nbest]]


def _once(texts: Iterable[tuple[str, float]]) -> dict[str, float]:
    """Return each text once, with its first score."""
    scores: dict[str, float] = {}
    for text, score in texts:
        scores.setdefault(text, score)
    return scores


def _with_single_spaces(text: str) -> str:
    """Return a text without the further ones of neighbouring spaces: hypotheses may have several separators."""
    return SPACES.sub(" ", text) if "  " in text else text


def token_texts(tokenizer: CTCTokenizer, vocab_size: int) -> TokenTexts:
    """Return the texts of the tokens of a checkpoint."""
    token = tokenizer.word_delimiter_token
    delimiter = tokenizer.get_vocab().get(token) if token else None
    return TokenTexts(
        tokenizer.written_characters(range(vocab_size)),
        delimiter if delimiter is not None and delimiter < vocab_size else None,
        tokenizer.pad_token_id,
        token or "|",
        are_phonemes=bool(tokenizer.joint),
    )


def check_settings(tokenizer: CTCTokenizer, vocab_size: int, *, lm: str | None, hot_words: Mapping[str, float]) -> None:
    """Check that a language model and hot words can be used with the tokens of a checkpoint.

    Raises:
        CheckpointError: the file is no whole language model, or the tokens cannot write its words or a hot word.
    """
    tokens = token_texts(tokenizer, vocab_size)
    if (text := unwritable(hot_words, tokens)) is not None:
        raise CheckpointError(
            f"hot_words: the checkpoint cannot write {text!r}; {tokens.described}: give hot words as they appear in "
            "its texts"
        )
    if lm is None:
        return
    own, file, _ = weighed(lm, None, None)
    model = open_model(file)
    if why := misfit((own.words() if own else None) or model.vocabulary(), tokens):
        raise CheckpointError(f"language model {str(file)!r} {why}")
