"""Columns of texts by beam search, from the best tokens of frames, on the host."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from raysp.checkpoints.language_models import NamedModel, open_model
from raysp.models.tokenizers.named_tokenizers import CTCTokenizer
from raysp.ops.transcribing import Transcribing
from raysp.text.beams.decoder import BeamDecoder, Extras
from raysp.text.beams.search import Hypothesis, TopFrames
from raysp.text.beams.tokens import TokenTexts


class FoundTexts(NamedTuple):
    """Texts of the rows of a batch."""

    columns: list[Sequence[object]]
    """Columns of the op, one value per row."""
    counts: npt.NDArray[np.int64]
    """(B,) tokens of each text."""


@dataclass(frozen=True)
class SearchSettings:
    """Settings of a search; they can be pickled, while language models may not be.

    Attributes:
        greedy: op that writes the columns of the best text.
        vocab_size: tokens of the model.
        beams: prefixes that are kept after each frame.
        nbest: texts of a recording; the column exists if it is above 1.
        lm: local path of a language model, or of the folder of a checkpoint's language model; None: no model.
        lm_weight: factor of its natural log-probabilities; None: the checkpoint's factor, or the default.
        word_bonus: added for each of its words; None: as for `lm_weight`.
        hot_words: weights of words and phrases.
    """

    greedy: Transcribing
    vocab_size: int
    beams: int
    nbest: int
    lm: str | None
    lm_weight: float | None
    word_bonus: float | None
    hot_words: Mapping[str, float]

    def decoder(self) -> BeamDecoder:
        """Return the decoder, with its language model open."""
        tokenizer = self.greedy.tokenizer
        ids = {tuple(tokenizer.ids_of_written(text)): weight for text, weight in self.hot_words.items()}
        extras = Extras(hot_words=ids)
        if self.lm is not None:
            model = NamedModel.at(self.lm)
            weights = model.weights(self.lm_weight, self.word_bonus)
            extras = Extras(open_model(model.file), model.words(), weights, ids)
        return BeamDecoder(token_texts(tokenizer, self.vocab_size), beams=self.beams, extras=extras)


class SearchedTexts:
    """Beam search over the best tokens of frames; the columns of a row do not depend on the other rows."""

    def __init__(self, settings: SearchSettings) -> None:
        self.greedy, self.nbest, self.beams = settings.greedy, settings.nbest, settings.beams
        self.decoder = settings.decoder()

    def __call__(self, frames: TopFrames, num_frames: Sequence[int]) -> FoundTexts:
        """Return the columns of the op from the first frames of each row."""
        hypotheses = self.decoder(frames, num_frames, best=self.beams if self.nbest > 1 else 1)
        tokens = self.decoder.aligned(frames, num_frames, [row[0] for row in hypotheses])
        columns = self.greedy.texts(tokens)
        columns[0] = [_with_single_spaces(str(text)) for text in columns[0]]
        if self.nbest > 1:
            columns.append([self._different(row) for row in hypotheses])
        return FoundTexts(columns, tokens.counts)

    def together(self, batches: Sequence[tuple[TopFrames, Sequence[int]]]) -> list[FoundTexts]:
        """Return the columns of batches, searched as one: a step takes about as long for any number of rows."""
        frames = [of_batch for of_batch, _ in batches]
        texts = self(TopFrames.joined(frames), [*chain.from_iterable(counts for _, counts in batches)])
        edges = [0, *accumulate(len(of_batch.blanks) for of_batch in frames)]
        places = [slice(*pair) for pair in pairwise(edges)]
        return [FoundTexts([column[place] for column in texts.columns], texts.counts[place]) for place in places]

    def _different(self, hypotheses: Iterable[Hypothesis]) -> list[dict[str, object]]:
        """Return the best different texts; texts equal up to spaces count once, with the best score."""
        decode = self.greedy.tokenizer.decode_collapsed
        scores = once((_with_single_spaces(decode(ids.tolist())), score) for ids, score in hypotheses)
        return [{"text": text, "score": score} for text, score in list(scores.items())[: self.nbest]]


def once(texts: Iterable[tuple[str, float]]) -> dict[str, float]:
    """Return each text once, with its first score."""
    scores: dict[str, float] = {}
    for text, score in texts:
        scores.setdefault(text, score)
    return scores


def _with_single_spaces(text: str) -> str:
    """Collapse spaces: hypotheses may have several separators in a row."""
    while "  " in text:
        text = text.replace("  ", " ")
    return text


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
