"""The best tokens of each frame: all that beam search needs of the logits.

Shapes: B batch, T frames, V vocabulary, K kept tokens.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from raysp.text.ctc import BestFrames

KEPT_TOKENS = 16
"""Tokens of a frame that a search extends prefixes by, besides the blank."""


@dataclass(frozen=True)
class TopFrames:
    """The blank and the best other tokens of each frame.

    Attributes:
        blanks: (B, T) float32 log-probabilities of the blank.
        ids: (B, T, K) int64 ids of the best other tokens, the best one first.
        log_probs: (B, T, K) float32 log-probabilities of these tokens.
    """

    blanks: Tensor
    ids: Tensor
    log_probs: Tensor

    def slice(self, first: int, end: int) -> "TopFrames":
        """Return some of the frames of all rows."""
        return TopFrames(self.blanks[:, first:end], self.ids[:, first:end], self.log_probs[:, first:end])

    def to(self, device: torch.device | str) -> "TopFrames":
        """Return the frames on a device."""
        return TopFrames(self.blanks.to(device), self.ids.to(device), self.log_probs.to(device))

    def best(self, blank: int) -> BestFrames:
        """Return the best token of each frame; of equal ones that with the lower id, as `argmax` does."""
        ids, log_probs = self.ids[..., 0], self.log_probs[..., 0]
        is_blank = (self.blanks > log_probs) | ((self.blanks == log_probs) & (blank < ids))
        return BestFrames(torch.where(is_blank, blank, ids), torch.where(is_blank, self.blanks, log_probs))


def top_frames(logits: Tensor, *, blank: int, kept: int = KEPT_TOKENS) -> TopFrames:
    """Return the blank and the best `kept` other tokens of each frame of `logits` (B, T, V).

    Log-probabilities are computed in float32, as those of `raysp.text.ctc.best_frames`.
    """
    logits = logits.float()
    best = logits.max(-1, keepdim=True).values
    log_sums = (logits - best).exp().sum(-1, keepdim=True).log()
    others = logits.clone()
    others[..., blank] = -torch.inf
    ids = _highest(others, min(kept, logits.shape[-1] - 1))
    blanks = logits[..., blank : blank + 1]
    return TopFrames((blanks - best - log_sums)[..., 0], ids, others.gather(-1, ids) - best - log_sums)


def _highest(values: Tensor, number: int) -> Tensor:
    """Return the places of the highest float32 values of the last axis, the highest first; of equal ones the first."""
    bits = (values + 0.0).view(torch.int32).long()  # 0.0 for -0.0
    ordered = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)  # as the numbers
    last = values.shape[-1] - 1
    backwards = last - torch.arange(last + 1, device=values.device)
    return last - (((ordered << 32) | backwards).topk(number, dim=-1).values & 0xFFFFFFFF)
