"""Learning rates over the course of training, as a factor of the highest."""

import math
from typing import Literal

Shape = Literal["tri_stage", "linear", "cosine", "constant"]

HOLD = 0.4
"""Share of training for which "tri_stage" holds the highest rate after the warm-up."""


def factor(progress: float, *, shape: Shape, warmup: float, final: float) -> float:
    """Return the factor of the learning rate at a point of training.

    Args:
        progress: share of training that is done, from 0 to 1.
        shape: course after the warm-up: "tri_stage" holds the rate, then decays it exponentially; "linear" and "cosine"
            decay it at once; "constant" keeps it.
        warmup: share of training over which the rate grows linearly from 0.
        final: factor at the end; for "tri_stage" above 0.
    """
    if progress < warmup:
        return progress / warmup
    rest = min(1.0, (progress - warmup) / max(1e-9, 1 - warmup))
    if shape == "constant":
        return 1.0
    if shape == "linear":
        return 1 + (final - 1) * rest
    if shape == "cosine":
        return final + (1 - final) * (1 + math.cos(math.pi * rest)) / 2
    decay = (progress - warmup - HOLD) / max(1e-9, 1 - warmup - HOLD)
    return math.exp(math.log(final) * min(1.0, max(0.0, decay)))
