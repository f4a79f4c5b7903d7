"""Measurement of passes of several sizes on a device, before the first block of a run goes through it.

Their results are dropped, so they change no label, and a pass that exceeds the memory only ends the measurement of
longer ones. Windows are repeated where a block has too few of them.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from raysp.device_streams import for_passes
from raysp.devices import (
    allocated,
    card_name,
    forget_highest,
    highest_allocated,
    memory_of,
    release_memory,
    synchronize,
)
from raysp.ops.passes.measured_budget import SHARES, MeasuredBudget, MeasuredPass, best, fits

logger = logging.getLogger(__name__)

REPEATS = 2
"""Passes of each size, of which the faster one counts: kernels are chosen and compiled in the first one."""


class MeasurableBatch(Protocol):
    """A batch that can run without labels."""

    def fill(self) -> None:
        """Pad the samples, and start their copy to the device."""
        ...

    def try_out(self) -> None:
        """Start the pass, and its outputs as far as they are work of the device."""
        ...

    def release(self) -> None:
        """Drop the tensors."""
        ...


@dataclass(frozen=True)
class PassSizes:
    """Sizes of passes of a checkpoint."""

    planned_seconds: float
    most_seconds: float
    """Longest pass that is tried."""
    sample_rate: int
    stride: int
    """Samples from one frame of the encoder to the next."""
    in_hand: int
    """Passes whose results are in memory at once."""


class PassMeasuring:
    """Measures passes on a device once.

    Args:
        device: the device, with the model.
        sizes: sizes of passes.
        recorded: seconds that earlier runs chose, by the name of the device: not measured again.
        is_used: whether batches may have the chosen size.
    """

    def __init__(self, device: torch.device, sizes: PassSizes, recorded: Mapping[str, float], *, is_used: bool) -> None:
        self.device, self.sizes, self.is_used = device, sizes, is_used
        self.card = card_name(device)
        self.recorded = recorded.get(self.card)
        self.is_due = self.recorded is None

    def __call__(
        self, num_samples: Sequence[int], batch_of: Callable[[Sequence[int]], MeasurableBatch]
    ) -> MeasuredBudget | None:
        """Return the chosen size; None if these windows are too few for a pass, or no pass could be measured.

        Args:
            num_samples: samples that each window costs the model.
            batch_of: returns a batch of windows by their indexes, in which some may stand several times.
        """
        planned = round(self.sizes.planned_seconds * self.sizes.sample_rate)
        if not self.is_due or sum(num_samples) < planned:
            return None
        self.is_due = False
        order = sorted(range(len(num_samples)), key=lambda i: -num_samples[i])
        with for_passes(self.device):
            synchronize(self.device)
            found = self._measured(planned, num_samples[order[0]], lambda n: batch_of(_repeated(order, n)))
        release_memory(self.device)
        if not found:
            return None
        seconds = best(found).seconds
        frames = round(seconds * self.sizes.sample_rate / self.sizes.stride)
        return MeasuredBudget(self.card, seconds, frames, self.is_used, tuple(found))

    def _measured(self, planned: int, longest: int, batch_of: Callable[[int], MeasurableBatch]) -> list[MeasuredPass]:
        found: list[MeasuredPass] = []
        weights, memory = allocated(self.device), memory_of(self.device)
        for share in SHARES:
            seconds = share * planned / self.sizes.sample_rate
            if share > 1 and not self._may_grow(seconds, found, weights, memory):
                break
            one = self._pass(seconds, max(1, int(share * planned) // longest), longest, batch_of)
            if one is None or not (fits(one, weights=weights, in_hand=self.sizes.in_hand, memory=memory) or not found):
                break
            found.append(one)
        return found

    def _may_grow(self, seconds: float, found: Sequence[MeasuredPass], weights: int, memory: int | None) -> bool:
        """Return whether a pass longer than the planned one may be tried."""
        if memory is None or not found or not found[-1].peak_bytes or seconds > self.sizes.most_seconds:
            return False
        expected = found[-1].times(seconds / found[-1].seconds)
        return fits(expected, weights=weights, in_hand=self.sizes.in_hand, memory=memory)

    def _pass(
        self, seconds: float, windows: int, longest: int, batch_of: Callable[[int], MeasurableBatch]
    ) -> MeasuredPass | None:
        """Return the measurement of a size; None if it does not fit into memory, or the model fails."""
        try:
            runs = [self._run(batch_of(windows)) for _ in range(REPEATS)]
        except Exception as error:  # a model may raise any error; labelling meets it again, and decides
            logger.info("a pass of %g s could not be measured: %s", seconds, error)
            return None
        taken = min(one for one, *_ in runs)
        rate = windows * longest / self.sizes.sample_rate / max(taken, 1e-9)
        return MeasuredPass(seconds, rate, *(max(one) for one in list(zip(*runs, strict=True))[1:]))

    def _run(self, batch: MeasurableBatch) -> tuple[float, int, int]:
        """Return the seconds of a pass on the device, its highest memory, and that of its results."""
        before = allocated(self.device)
        try:
            batch.fill()
            synchronize(self.device)
            forget_highest(self.device)
            started = time.perf_counter()
            batch.try_out()
            synchronize(self.device)
            taken = time.perf_counter() - started
            return taken, max(0, highest_allocated(self.device) - before), max(0, allocated(self.device) - before)
        finally:
            batch.release()


def _repeated(order: Sequence[int], number: int) -> list[int]:
    """Return `number` windows, the longest first; those of a short list are repeated."""
    return [order[place] for place in sorted(one % len(order) for one in range(number))]
