"""The best tokens of each frame of logits, chosen on their device."""

import torch
from torch import Tensor

KEPT_TOKENS = 16
"""Tokens of a frame that a search extends prefixes by, besides the blank."""


def top_tokens(logits: Tensor, *, blank: int, kept: int = KEPT_TOKENS) -> tuple[Tensor, Tensor, Tensor]:
    """Return the fields of `TopFrames`: the blank and the best `kept` other tokens of each frame of `logits` (B, T, V).

    Log-probabilities are computed in float32, as in `raysp.text.greedy_ctc.best_frames`.
    """
    logits = logits.float()
    best = logits.max(-1, keepdim=True).values
    log_sums = (logits - best).exp().sum(-1, keepdim=True).log()
    without_blank = logits.clone()
    without_blank[..., blank] = -torch.inf
    ids = _highest(without_blank, min(kept, logits.shape[-1] - 1))
    blanks = logits[..., blank : blank + 1]
    return (blanks - best - log_sums)[..., 0], ids.int(), without_blank.gather(-1, ids) - best - log_sums


def _highest(values: Tensor, number: int) -> Tensor:
    """Return the places of the highest float32 values of the last axis, the highest first; of equal ones the first."""
    bits = (values + 0.0).view(torch.int32).long()  # 0.0 for -0.0
    ordered = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)  # as the numbers
    last = values.shape[-1] - 1
    backwards = last - torch.arange(last + 1, device=values.device)
    return last - (((ordered << 32) | backwards).topk(number, dim=-1).values & 0xFFFFFFFF)
