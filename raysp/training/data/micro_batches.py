"""Decoded rows, micro-batches of them with their targets, and the losses and random numbers of a pass over them.

Random numbers are a function of the place in the order of rows, not of the worker or the past.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from raysp.crossing import sent
from raysp.training.planning.ordering import Window


class TrainingRow(NamedTuple):
    """A decoded row."""

    wave: np.ndarray
    """Samples, int16 or float32, at the model's sample rate."""
    target: Sequence[int]


Rows = Callable[[Window], Mapping[int, TrainingRow]]
"""Returns this worker's rows of a window by their numbers. Rows that cannot be decoded are left out, the same ones each
time."""


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
    """Target of each row: ids of tokens or of classes."""
    progress: float = 0.0
    """Share of the training that is done before the step."""


@dataclass(frozen=True)
class Losses:
    """Losses of the rows of a micro-batch."""

    total: Tensor
    """Sum to differentiate, ()."""
    count: float
    """Divisor of the sum over all workers: rows or tokens; available without waiting for a device."""
    rows_B: Tensor
    """Loss of each row without gradients, (B,), for the mean of an evaluation. If `count` counts tokens, it is the mean
    over the tokens of the row."""

    @classmethod
    def of(cls, losses_B: Tensor, num_tokens_B: Tensor | None = None) -> "Losses":
        """Return the losses of rows (B,), whose sum is divided by the rows.

        Args:
            losses_B: losses; with `num_tokens_B`, summed over the tokens of each row.
            num_tokens_B: tokens of each row, on the CPU, by which the sum is divided; None: by the rows.
        """
        rows_B = losses_B.detach()
        if num_tokens_B is None:
            return cls(losses_B.sum(), float(len(rows_B)), rows_B)
        return cls(losses_B.sum(), float(num_tokens_B.sum()), rows_B / sent(num_tokens_B, rows_B.device).clamp(min=1))


def seed_micro_batch(seed: int, epoch: int, step: int, micro_batch: int) -> None:
    """Seed torch and numpy for a micro-batch, whose dropout, masks and augmentation are then the same on any worker.

    Layer drop and SpecAugment draw from numpy or from torch on the CPU, dropout from torch on the device.
    """
    state = np.random.SeedSequence((seed, epoch, step, micro_batch)).generate_state(2, np.uint64)
    torch.manual_seed(int(state[0]) % 2**63)
    np.random.seed(int(state[1]) % 2**32)  # the generator of the models, as in the originals


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw initial weights on the CPU from a seed, and leave torch's generator as it was."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        yield
