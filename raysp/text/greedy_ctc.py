"""Greedy CTC (Graves et al. 2006): best token of each frame, repeats merged, blanks removed.

The best token of each frame is computed on the device of the logits. Only its id and score are copied to the CPU, where
all rows are collapsed at once. A row's tokens and scores do not depend on the other rows of its batch.

Shapes: B batch, T frames, V vocabulary, N tokens of all rows.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor

SHORT_RUN = 4  # frames


@dataclass(frozen=True)
class CTCTokens:
    """The tokens of a batch, concatenated by row.

    Attributes:
        flat_ids: (N,) int32 token ids.
        counts: (B,) int64 number of tokens of each row.
        scores: (B,) float32 mean of `token_scores` over a row's tokens; NaN for a row without tokens.
        token_scores: (N,) float32 log-probability of each token in its best frame.
        first_frames: (N,) int32 first frame of each token.
        last_frames: (N,) int32 last frame of each token.
        finite: (B,) bool, False if the logits of a valid frame are NaN or infinite, so that the row is invalid.
    """

    flat_ids: npt.NDArray[np.int32]
    counts: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]
    token_scores: npt.NDArray[np.float32]
    first_frames: npt.NDArray[np.int32]
    last_frames: npt.NDArray[np.int32]
    finite: npt.NDArray[np.bool_]

    def rows(self) -> Iterator[slice]:
        """Yield the slice of each row's tokens in the flat arrays."""
        ends = np.cumsum(self.counts).tolist()
        return (slice(end - count, end) for end, count in zip(ends, self.counts.tolist(), strict=True))

    def ids(self) -> Iterator[list[int]]:
        """Yield each row's token ids."""
        flat = self.flat_ids.tolist()
        return (flat[row] for row in self.rows())

    def score_list(self) -> list[float | None]:
        """Return each row's score, None for a row without tokens."""
        return [
            score if count else None for score, count in zip(self.scores.tolist(), self.counts.tolist(), strict=True)
        ]


@dataclass(frozen=True)
class BestFrames:
    """The best token of each frame and its log-probability, which is all that greedy CTC needs of the logits.

    Attributes:
        ids: (B, T) int64 token ids.
        log_probs: (B, T) float32 log-probabilities.
    """

    ids: "Tensor"
    log_probs: "Tensor"


def best_frames(logits: "Tensor") -> BestFrames:
    """Return the best token of each frame of `logits` (B, T, V)."""
    ids, logits = logits.argmax(-1), logits.float()
    best = logits.gather(-1, ids[:, :, None])  # subtracted first, so that no exponential overflows
    return BestFrames(ids, -(logits - best).exp().sum(-1).log())


def collapsed(
    ids: npt.NDArray[np.int32], log_probs: npt.NDArray[np.float32], num_frames: npt.ArrayLike, *, blank: int
) -> CTCTokens:
    """Return the tokens of rows as `collapse`, from the ids and log-probabilities (B, T) of the best tokens."""
    is_valid = np.arange(ids.shape[1]) < np.asarray(num_frames)[:, None]
    if not is_valid.all():
        ids = np.where(is_valid, ids, blank)

    is_start = np.ones(ids.shape, np.bool_)
    is_start[:, 1:] = ids[:, 1:] != ids[:, :-1]
    starts = np.flatnonzero(is_start)  # (runs,), indices into all B * T frames
    is_token = ids.ravel()[starts] != blank
    first = starts[is_token]  # (N,), as is num_joined
    num_joined = np.diff(starts, append=ids.size)[is_token]
    row_starts = np.arange(len(ids) + 1) * ids.shape[1]
    counts = np.diff(np.searchsorted(first, row_starts))

    token_scores = _highest(log_probs.ravel(), first, num_joined)
    first_frames = first - np.repeat(row_starts[:-1], counts)
    return CTCTokens(
        flat_ids=ids.ravel()[first],
        counts=counts,
        scores=row_means(token_scores, counts),
        token_scores=token_scores,
        first_frames=first_frames.astype(np.int32),
        last_frames=(first_frames + num_joined - 1).astype(np.int32),
        finite=np.all(np.isfinite(log_probs) | ~is_valid, axis=1),
    )


def _highest(
    values: npt.NDArray[np.float32], first: npt.NDArray[np.int64], num_joined: npt.NDArray[np.int64]
) -> npt.NDArray[np.float32]:
    """Return the highest value of each run of `num_joined` values (N,) that starts at `first` (N,)."""
    highest, longer = values[first], np.arange(len(first))
    for place in range(1, SHORT_RUN):  # nearly all runs are this short, and the loop is faster than `reduceat`
        longer = longer[num_joined[longer] > place]
        highest[longer] = np.maximum(highest[longer], values[first[longer] + place])
    longer = longer[num_joined[longer] > SHORT_RUN]
    if len(longer):
        bounds = np.stack([first[longer], first[longer] + num_joined[longer]], axis=1).ravel()
        highest[longer] = np.maximum.reduceat(np.append(values, values[-1:]), bounds)[::2]
    return highest


def row_means(token_scores: npt.NDArray[np.float32], counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Return the mean of each row, NaN without tokens. Rows are summed separately, so their order changes no bit."""
    means = np.full(len(counts), np.nan, np.float32)
    filled = counts > 0
    starts = (np.cumsum(counts) - counts)[filled]
    if len(starts):
        means[filled] = np.add.reduceat(token_scores.astype(np.float64), starts) / counts[filled]
    return means
