"""Axes of charts: their range, and few round ticks."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

MOST_TICKS = 6


@dataclass(frozen=True)
class Tick:
    """A labelled place of an axis."""

    place: float
    """Position on the axis, from 0 to 1."""
    text: str


@dataclass(frozen=True)
class Axis:
    """A range of values."""

    low: float
    high: float
    ticks: tuple[Tick, ...]

    def places(self, values: Floats) -> Floats:
        """Return the places of values, from 0 to 1; of values outside the range the nearer end."""
        inside: Floats = (np.clip(values, self.low, self.high) - self.low) / (self.high - self.low)
        return inside


def count_axis(last: int) -> Axis:
    """Return the axis of whole numbers from 0, such as steps of a training or rows."""
    high = max(1, last)
    size = max(1.0, _round_size(high / (MOST_TICKS - 1)))
    return _with_ticks(0.0, float(high), size, short)


def value_axis(values: Floats, *, is_share: bool = False) -> Axis:
    """Return an axis whose ends are round, over at least one finite value; ticks of shares are percentages."""
    low, high = float(values.min()), float(values.max())
    if high - low < 1e-9 * max(abs(low), abs(high), 1e-30):
        low, high = _around(high, is_share=is_share)
    size = _round_size((high - low) / (MOST_TICKS - 2))
    low, high = math.floor(low / size + 1e-9) * size, math.ceil(high / size - 1e-9) * size
    return _with_ticks(low, high, size, lambda value: f"{100 * value:,.12g}%" if is_share else f"{value:,.12g}")


def _around(value: float, *, is_share: bool) -> tuple[float, float]:
    """Return a range with a value that is alone in it; of shares it ends at 100 % unless they are larger."""
    if not value:
        return 0.0, 1.0
    most = max(1.0, value) if is_share else math.inf
    return min(0.0, 2 * value), max(0.0, min(2 * value, most))


def short(value: float) -> str:
    """Return a whole number as text, such as "500", "20k" or "1.5M"."""
    for unit, name in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= (unit if unit == 1e6 else 1e4):
            return f"{value / unit:g}{name}"
    return f"{value:,.0f}"


def _round_size(least: float) -> float:
    """Return the smallest of 1, 2 and 5 times a power of ten that is not below `least`."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1.0, 2.0, 5.0, 10.0) if factor * power >= least * (1 - 1e-9))


def _with_ticks(low: float, high: float, size: float, text: Callable[[float], str]) -> Axis:
    """Return an axis with ticks at the multiples of a size."""
    first, last = math.ceil(low / size - 1e-9), math.floor(high / size + 1e-9)
    values = [place * size for place in range(first, last + 1)]
    places = Axis(low, high, ()).places(np.array(values, np.float64)).tolist()
    return Axis(low, high, tuple(Tick(place, text(value)) for place, value in zip(places, values, strict=True)))
