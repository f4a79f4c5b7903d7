"""Forced alignment: the times of the words of a given text, and how well it fits its recording."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor

from raysp.models.base.capabilities import Capability
from raysp.models.tokenizers.ctc import Wav2Vec2CTCTokenizer
from raysp.ops.labelling import Forward
from raysp.ops.late_steps import carried_values
from raysp.text.alignment import Alignment, Target, align
from raysp.text.spelling import Spelling, Spelt

Spans = list[dict[str, object]]


@dataclass(frozen=True)
class _Timed:
    """A word or character with its times in seconds and its probability; None if the vocabulary lacks it."""

    text: str
    start: float | None = None
    end: float | None = None
    score: float | None = None

    def as_struct(self, name: str) -> dict[str, object]:
        """Return the value for a column of words or characters."""
        return {name: self.text, "start": self.start, "end": self.end, "score": self.score}


class Aligning:
    """Op that aligns the text of a column of the source with the frames of a CTC head.

    For a window of a longer row it stages the log-probabilities of the blank, of the tokens that the text has and of
    the best token, of each frame that the window owns. `join` aligns the text with the frames of all windows.

    Args:
        schema: columns of score and number of characters left out, then optionally of words and characters.
        staged: staged column of a window of a longer row.
        tokenizer: tokenizer with the vocabulary; its padding token is the blank.
        column: column of the source with the texts.
        vocab_size: tokens of the head.
        frame_seconds: time between frames.
        wildcard: whether other speech may be before, between and behind the words.
    """

    layers: tuple[int, ...] = ()

    def __init__(
        self,
        schema: pa.Schema,
        staged: pa.Schema,
        tokenizer: Wav2Vec2CTCTokenizer,
        *,
        column: str,
        vocab_size: int,
        frame_seconds: float,
        wildcard: bool = False,
    ) -> None:
        self.schema = schema
        self.staged = staged
        self.column = column
        self.blank = tokenizer.pad_token_id
        self.spelling = spelling_of(tokenizer, vocab_size)
        self.frame_seconds = frame_seconds
        self.wildcard = wildcard

    def __call__(self, forward: Forward) -> list[Sequence[object]]:
        """Return the columns of `schema`, then that of `staged`, one value per window."""
        log_probs = forward.of(Capability.CTC)["logits"].float().log_softmax(-1)  # (B, T, V)
        spelt = [self._spelt(text) for text in forward.columns[self.column]]
        is_whole = [part is None and one is not None for part, one in zip(forward.parts, spelt, strict=True)]
        targets = [
            one.target(wildcard=self.wildcard) if one is not None and whole else Target(())
            for one, whole in zip(spelt, is_whole, strict=True)
        ]
        found = align(log_probs, forward.num_frames_B.tolist(), targets, blank=self.blank)
        values = [
            self._row(one, alignment) if one is not None and whole else self.empty()
            for one, whole, alignment in zip(spelt, is_whole, found, strict=True)
        ]
        staged = [
            None if part is None or one is None else _staged(log_probs[row, slice(*part)], self._kept(one))
            for row, (part, one) in enumerate(zip(forward.parts, spelt, strict=True))
        ]
        return [*zip(*values, strict=True), staged]

    def empty(self) -> tuple[object, ...]:
        """Return the values of a recording shorter than one frame, or without a text: nulls."""
        return tuple(None for _ in self.schema)

    def join(self, windows: pa.Table) -> tuple[object, ...]:
        """Return the columns of `schema` of one row, from the staged column of its windows in order."""
        spelt = self._spelt(carried_values(windows, self.column)[-1])
        if spelt is None:
            return self.empty()
        kept = self._kept(spelt)
        column = cast("pa.ListArray[Any]", windows.column(self.staged.names[0]).combine_chunks())
        frames = torch.from_numpy(np.array(column.flatten()).reshape(1, -1, len(kept) + 1))
        places = {index: place for place, index in enumerate(kept)}
        target = spelt.target(wildcard=self.wildcard)
        local = Target([places[index] for index in target.ids], target.gaps)
        [found] = align(frames[..., :-1], [frames.shape[1]], [local], blank=0, best=frames[..., -1])
        return self._row(spelt, found)

    def _spelt(self, text: object) -> Spelt | None:
        return None if text is None else self.spelling(str(text))

    def _kept(self, spelt: Spelt) -> list[int]:
        """Return the ids of the blank and of the tokens of a text, of which windows stage log-probabilities."""
        return [self.blank, *sorted({*spelt.target().ids} - {self.blank})]

    def _row(self, spelt: Spelt, alignment: Alignment | None) -> tuple[object, ...]:
        """Return the columns of a row; without a path null, but for the number of characters that were left out."""
        if alignment is None and any(word.ids for word in spelt.words):
            return (None, spelt.num_skipped, *(None for _ in self.schema.names[2:]))
        spans: dict[str, Spans] = {"words": [], "chars": []}
        for word, letters in self._timed(spelt, alignment):
            spans["words"].append(word.as_struct("word"))
            spans["chars"] += [letter.as_struct("char") for letter in letters]
        score = None if alignment is None else alignment.score
        return (score, spelt.num_skipped, *(spans[name.rpartition("_")[2]] for name in self.schema.names[2:]))

    def _timed(self, spelt: Spelt, alignment: Alignment | None) -> Iterator[tuple[_Timed, list[_Timed]]]:
        """Yield each word with its characters."""
        for word, places in zip(spelt.words, spelt.places(), strict=True):
            letters = [
                _Timed(one.text) if alignment is None or not one.ids else self._letter(one.text, place, alignment)
                for one, place in zip(word.letters, places, strict=True)
            ]
            known = [one for one in letters if one.score is not None]
            if known:
                score = sum(cast("float", one.score) for one in known) / len(known)
                yield _Timed(word.text, known[0].start, known[-1].end, score), letters
            else:
                yield _Timed(word.text), letters

    def _letter(self, text: str, place: slice, alignment: Alignment) -> _Timed:
        start = int(alignment.first_frames[place.start]) * self.frame_seconds
        end = (int(alignment.last_frames[place.stop - 1]) + 1) * self.frame_seconds
        return _Timed(text, start, end, float(np.exp(alignment.token_scores[place], dtype=np.float64).mean()))


def _staged(log_probs: Tensor, kept: Sequence[int]) -> npt.NDArray[np.float32]:
    """Return log-probabilities of the tokens `kept` and of the best token of frames (T, V), frame by frame."""
    return torch.cat([log_probs[:, kept], log_probs.amax(-1, keepdim=True)], -1).flatten().cpu().numpy()


def spelling_of(tokenizer: Wav2Vec2CTCTokenizer, vocab_size: int) -> Spelling:
    """Return the spelling of texts in the tokens of a head."""
    special = {*tokenizer.all_special_tokens}
    known = {token: index for token, index in tokenizer.encoder.items() if index < vocab_size}
    delimiter = known.get(tokenizer.word_delimiter_token or "")
    return Spelling({token: index for token, index in known.items() if token not in special}, delimiter)
