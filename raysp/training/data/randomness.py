"""Random numbers of training: a function of the place in the order of rows, not of the worker or the past."""

import contextlib
from collections.abc import Iterator

import numpy as np
import torch


def seed_micro_batch(seed: int, epoch: int, step: int, micro_batch: int) -> None:
    """Seed torch and numpy for a micro-batch, whose dropout, masks and augmentation are then the same on any worker.

    Layer drop and SpecAugment draw from numpy or from torch on the CPU, dropout from torch on the device.
    """
    state = np.random.SeedSequence((seed, epoch, step, micro_batch)).generate_state(2, np.uint64)
    torch.manual_seed(int(state[0]) % 2**63)
    np.random.seed(int(state[1]) % 2**32)  # what the models draw from, as their originals do


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw initial weights on the CPU from a seed, and leave torch's generator as it was."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        yield
