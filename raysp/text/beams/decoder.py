"""CTC beam search of the rows of a batch, with the times and scores of greedy decoding for the best texts.

Shapes: B batch, T frames, N tokens of all rows.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt
import torch

from raysp.text.alignment import Alignment, Target, align
from raysp.text.beams.arpa import Ngrams
from raysp.text.beams.hot_words import HotWords
from raysp.text.beams.kenlm import KenlmModel
from raysp.text.beams.language_model import CharacterModel, Lexicon, Weights, WordModel, scores_of
from raysp.text.beams.search import BeamSearch, Fusion, Hypothesis, TopFrames
from raysp.text.beams.tokens import TokenTexts, is_of_characters
from raysp.text.greedy_ctc import CTCTokens, collapsed, row_means


@dataclass(frozen=True)
class Extras:
    """Language model and hot words, which weigh hypotheses besides the frames."""

    lm: Ngrams | KenlmModel | None = None
    lm_words: Sequence[str] | None = None
    """Words that count as known, if the model has them; None: all of the model."""
    lm_weights: Weights = field(default_factory=lambda: Weights(0.5, 1.0))
    hot_words: Mapping[tuple[int, ...], float] | None = None
    """Weights of sequences of tokens."""


class BeamDecoder:
    """Decoder of frames, on the host.

    Args:
        tokens: the vocabulary.
        beams: number of prefixes that are kept after each frame.
        extras: language model and hot words.
    """

    def __init__(self, tokens: TokenTexts, *, beams: int, extras: Extras) -> None:
        self.tokens = tokens
        self.search = BeamSearch(beams, _fusions(tokens, extras), delimiters=np.array(tokens.is_delimiter))

    def __call__(self, frames: TopFrames, num_frames: Sequence[int], *, best: int) -> list[list[Hypothesis]]:
        """Return up to `best` hypotheses of each row's first `num_frames` (B,) frames, at least one of each."""
        hypotheses = self.search(frames, num_frames, best=best)
        nothing = Hypothesis(np.empty(0, np.int32), -np.inf)
        return [row or [nothing] for row in hypotheses]

    def aligned(self, frames: TopFrames, num_frames: Sequence[int], best: Sequence[Hypothesis]) -> CTCTokens:
        """Return the tokens of the best hypotheses with their most probable frames.

        A row with the same tokens as by greedy decoding keeps its alignment, which is the most probable.
        """
        greedy = collapsed(*frames.best(self.tokens.blank), num_frames, blank=self.tokens.blank)
        rows = [_Tokens.of(greedy, part) for part in greedy.rows()]
        is_greedy = [np.array_equal(row.ids, hypothesis.ids) for row, hypothesis in zip(rows, best, strict=True)]
        realigned = [row for row, same in enumerate(is_greedy) if greedy.finite[row] and not same]
        aligned = _aligned(frames, num_frames, realigned, best, len(self.tokens.texts))
        for row, tokens in zip(realigned, aligned, strict=True):
            rows[row] = tokens
        counts = np.array([len(tokens.ids) for tokens in rows], np.int64)
        ids, first_frames, last_frames, scores = (np.concatenate(parts) for parts in zip(*rows, strict=True))
        return CTCTokens(
            flat_ids=ids,
            counts=counts,
            scores=row_means(scores, counts),
            token_scores=scores,
            first_frames=first_frames,
            last_frames=last_frames,
            finite=greedy.finite,
        )


class _Tokens(NamedTuple):
    """The tokens of a row (N,), as in `CTCTokens`."""

    ids: npt.NDArray[np.int32]
    first_frames: npt.NDArray[np.int32]
    last_frames: npt.NDArray[np.int32]
    scores: npt.NDArray[np.float32]

    @classmethod
    def aligned(cls, ids: npt.NDArray[np.int32], alignment: Alignment | None, num_frames: int) -> Self:
        """Return tokens with the frames and scores of their alignment."""
        if alignment is None:
            if len(ids):
                raise ValueError(f"{len(ids)} tokens have no alignment with {num_frames} frames")
            return cls(ids, ids, ids, np.empty(0, np.float32))
        edges = (alignment.first_frames.astype(np.int32), alignment.last_frames.astype(np.int32))
        return cls(ids, *edges, alignment.token_scores)

    @classmethod
    def of(cls, tokens: CTCTokens, part: slice) -> Self:
        """Return the tokens of one row of a batch."""
        return cls(
            tokens.flat_ids[part], tokens.first_frames[part], tokens.last_frames[part], tokens.token_scores[part]
        )


def _aligned(
    frames: TopFrames, num_frames: Sequence[int], rows: Sequence[int], best: Sequence[Hypothesis], num_tokens: int
) -> Iterator[_Tokens]:
    """Yield the tokens of hypotheses of some rows with their most probable frames."""
    kept = [np.unique(best[row].ids) for row in rows]
    if not rows:
        return
    width = 1 + max(map(len, kept))
    # The blank is the first column, the tokens of the hypothesis follow, and the last column has all others.
    columns = np.full((len(rows), num_tokens), width, np.int64)
    for place, ids in enumerate(kept):
        columns[place, ids] = np.arange(1, len(ids) + 1)
    targets = [Target((1 + np.searchsorted(ids, best[row].ids)).tolist()) for row, ids in zip(rows, kept, strict=True)]
    chosen = list(rows)
    places = np.take_along_axis(columns[:, None], frames.ids[chosen].astype(np.int64), 2)
    log_probs = np.full((*places.shape[:2], width + 1), -np.inf, np.float32)
    np.put_along_axis(log_probs, places, frames.log_probs[chosen], 2)
    log_probs[..., 0] = frames.blanks[chosen]
    highest = np.maximum(frames.blanks, frames.log_probs[..., 0])[chosen]
    counts = [num_frames[row] for row in rows]
    kept_log_probs, best_of_frames = (torch.from_numpy(array) for array in (log_probs[..., :width], highest))
    alignments = align(kept_log_probs, counts, targets, blank=0, best=best_of_frames)
    for row, count, alignment in zip(rows, counts, alignments, strict=True):
        yield _Tokens.aligned(best[row].ids, alignment, count)


def _fusions(tokens: TokenTexts, extras: Extras) -> list[Fusion]:
    fusions: list[Fusion] = []
    if extras.lm is not None:
        scores = scores_of(extras.lm)
        if is_of_characters(extras.lm.vocabulary(), tokens):
            fusions.append(CharacterModel(scores, extras.lm.ids(tokens.characters), extras.lm_weights))
        else:
            fusions.append(WordModel(scores, Lexicon(extras.lm, extras.lm_words), tokens.texts, extras.lm_weights))
    if extras.hot_words:
        fusions.append(HotWords(extras.hot_words, vocab_size=len(tokens.texts), delimiter=tokens.delimiter))
    return fusions
