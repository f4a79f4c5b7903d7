"""Greedy CTC (Graves et al. 2006): the best token of each frame, repeats joined, blanks dropped.

All rows at once on the device of the logits; what comes back to the CPU is as small as the text. A row's tokens and
scores do not depend on what shares its batch.

Shapes: B batch, T frames, V vocabulary, N tokens of all rows.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


@dataclass(frozen=True)
class CTCTokens:
    """The tokens of a batch, row after row.

    Attributes:
        flat_ids: (N,) int32 token ids.
        counts: (B,) int64 tokens of each row.
        scores: (B,) float32 mean over a row's tokens of each one's best log-probability; NaN without tokens.
        token_scores: (N,) float32 log-probability of each token in its best frame.
        first_frames: (N,) int32 first frame of each token.
        last_frames: (N,) int32 last frame of each token.
        finite: (B,) bool, False where a valid frame's logits are NaN or infinite, so that the row means nothing.
    """

    flat_ids: npt.NDArray[np.int32]
    counts: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]
    token_scores: npt.NDArray[np.float32]
    first_frames: npt.NDArray[np.int32]
    last_frames: npt.NDArray[np.int32]
    finite: npt.NDArray[np.bool_]

    def rows(self) -> Iterator[slice]:
        """Yield where each row's tokens stand in the flat arrays."""
        ends = np.cumsum(self.counts).tolist()
        return (slice(end - count, end) for end, count in zip(ends, self.counts.tolist(), strict=True))

    def ids(self) -> Iterator[list[int]]:
        """Yield each row's token ids."""
        flat = self.flat_ids.tolist()
        return (flat[row] for row in self.rows())

    def score_list(self) -> list[float | None]:
        """Return each row's score, None without tokens."""
        return [
            score if count else None for score, count in zip(self.scores.tolist(), self.counts.tolist(), strict=True)
        ]


@dataclass(frozen=True)
class BestFrames:
    """The best token of each frame, and its log-probability: all of the logits that greedy CTC looks at.

    Attributes:
        ids: (B, T) int64.
        log_probs: (B, T) float32.
    """

    ids: Tensor
    log_probs: Tensor


def greedy(logits: Tensor, num_frames: Tensor, *, blank: int) -> CTCTokens:
    """Return the tokens of each row's first `num_frames` (B,) frames of `logits` (B, T, V).

    Equal to joining repeats in `logits.argmax(-1)` and then dropping `blank`.
    """
    return collapse(best_frames(logits), num_frames, blank=blank)


def best_frames(logits: Tensor) -> BestFrames:
    """Choose the best token of each frame of `logits` (B, T, V)."""
    ids = logits.argmax(-1)
    return BestFrames(ids, _best_log_probs(logits, ids))


def collapse(frames: BestFrames, num_frames: Tensor, *, blank: int) -> CTCTokens:
    """Join repeats in each row's first `num_frames` (B,) frames, and drop `blank`."""
    ids, log_probs = frames.ids, frames.log_probs  # (B, T), as all that follows
    frame = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
    is_valid = frame < num_frames.to(ids.device)[:, None]
    is_start = torch.ones_like(is_valid)
    is_start[:, 1:] = ids[:, 1:] != ids[:, :-1]
    is_start &= is_valid
    is_token = is_start & (ids != blank)

    # There are at most as many runs as frames; that many are kept, since counting them would wait for the GPU.
    run = (is_start.flatten().cumsum(0) - 1).clamp(min=0)
    best = torch.full_like(log_probs, -torch.inf).flatten()
    best = best.scatter_reduce(0, run, log_probs.masked_fill(~is_valid, -torch.inf).flatten(), "amax")
    last = torch.full_like(run, -1).scatter_reduce(0, run, frame.masked_fill(~is_valid, -1).flatten(), "amax")

    place = is_token.flatten().nonzero()[:, 0]  # (N,)
    run = run[place]
    whole = torch.stack([ids.flatten()[place], frame.flatten()[place], last[run]]).int().cpu().numpy()
    token_scores = best[run].cpu().numpy()
    counts = is_token.sum(1).cpu().numpy()
    return CTCTokens(
        flat_ids=whole[0],
        counts=counts,
        scores=_row_means(token_scores, counts),
        token_scores=token_scores,
        first_frames=whole[1],
        last_frames=whole[2],
        finite=(log_probs.isfinite() | ~is_valid).all(1).cpu().numpy(),
    )


def _best_log_probs(logits: Tensor, ids: Tensor) -> Tensor:
    """Return log softmax of each frame's best token (B, T), in float32."""
    logits = logits.float()
    best = logits.gather(-1, ids[:, :, None])
    return -(logits - best).exp().sum(-1).log()


def _row_means(token_scores: npt.NDArray[np.float32], counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Average each row by itself, so that the order of rows changes no bit; NaN for a row without tokens."""
    means = np.full(len(counts), np.nan, np.float32)
    filled = counts > 0
    starts = (np.cumsum(counts) - counts)[filled]
    if len(starts):
        means[filled] = np.add.reduceat(token_scores.astype(np.float64), starts) / counts[filled]
    return means
