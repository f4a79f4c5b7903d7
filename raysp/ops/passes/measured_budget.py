"""Padded seconds of a pass on a device, chosen by passes of several sizes that were measured; it needs no torch.

A longer pass has fewer launches for its audio and fuller kernels, and takes more memory. From some size on it is no
faster: the least of these sizes is chosen.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

SHARES = (0.25, 0.5, 1.0, 2.0)
"""Sizes that are measured, as shares of the planned one; the last one where memory and `most_seconds` allow it."""
ENOUGH = 0.98
"""Share of the best rate that a smaller pass must reach, as two measurements of one size differ by the rest."""
MEMORY_SHARE = 0.9
"""Share of the memory of a device that measured passes may take."""


@dataclass(frozen=True)
class MeasuredPass:
    """A pass of one size."""

    seconds: float
    """Seconds of padded audio."""
    rate: float
    """Padded seconds of audio per second of the device."""
    peak_bytes: int
    """Highest memory while it ran, besides weights; 0: not counted."""
    held_bytes: int
    """Memory of its results, until they are labels."""

    def all_bytes(self, in_hand: int) -> int:
        """Return the memory of `in_hand` passes, of which one runs."""
        return self.peak_bytes + (in_hand - 1) * self.held_bytes

    def times(self, factor: float) -> Self:
        """Return an estimate of a pass that is `factor` times as long, at the same rate."""
        sizes = (round(factor * self.peak_bytes), round(factor * self.held_bytes))
        return type(self)(factor * self.seconds, self.rate, *sizes)


@dataclass(frozen=True)
class MeasuredBudget:
    """Padded seconds of a pass that were chosen on a device."""

    card: str
    """Name of the device."""
    seconds: float
    frames: int
    """`seconds` in frames of the encoder: part of the key of a certificate (`Certificate.keeps_products`)."""
    is_used: bool
    """Whether batches have this size; else labels may depend on it, and they keep the recorded size."""
    passes: tuple[MeasuredPass, ...]

    @property
    def words(self) -> str:
        """The size with its rate, such as "300 s, 9,600 times real time"."""
        return f"{self.seconds:g} s, {self.chosen.rate:,.0f} times real time"

    @property
    def chosen(self) -> MeasuredPass:
        """The measurement of the chosen size."""
        return next(one for one in self.passes if one.seconds == self.seconds)


def fits(one: MeasuredPass, *, weights: int, in_hand: int, memory: int | None) -> bool:
    """Return whether `in_hand` passes of a size fit into memory beside weights; in bytes, memory None: unknown."""
    return memory is None or weights + one.all_bytes(in_hand) <= MEMORY_SHARE * memory


def best(passes: Sequence[MeasuredPass]) -> MeasuredPass:
    """Return the shortest of the passes that are as fast as the fastest one, but for `ENOUGH`."""
    most = max(one.rate for one in passes)
    return min((one for one in passes if one.rate >= ENOUGH * most), key=lambda one: one.seconds)
