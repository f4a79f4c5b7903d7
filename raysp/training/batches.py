"""Micro-batches: decoded rows with their targets, and the losses of a pass over them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from torch import Tensor

from raysp.models.base.modeling import Model


@dataclass(frozen=True)
class MicroBatch:
    """Rows of one forward and backward pass."""

    number: int
    """Place of the micro-batch in its step."""
    rows: Sequence[int]
    """Numbers of the rows in the corpus."""
    waves: Sequence[np.ndarray]
    """Samples of each row, int16 or float32, at the model's sample rate."""
    targets: Sequence[Sequence[int]]
    """Target of each row: ids of tokens, or of classes."""


@dataclass(frozen=True)
class Losses:
    """Losses of the rows of a micro-batch."""

    total: Tensor
    """Sum to differentiate, ()."""
    count: float
    """What the sum over all workers is divided by: rows, tokens or frames."""
    rows_B: Tensor
    """Loss of each row, without gradients."""


class Objective(Protocol):
    """What a model is trained for."""

    model: Model

    def __call__(self, batch: MicroBatch) -> Losses:
        """Run the model on a micro-batch of at least one row."""
        ...
