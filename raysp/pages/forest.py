"""Estimates below each other with their intervals on one axis, as meta-analyses draw them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from raysp.pages.axes import Axis, value_axis


class Interval(NamedTuple):
    """An estimate with the ends of its interval."""

    name: str
    figure: str
    """The estimate as text."""
    low: float
    value: float
    high: float


@dataclass(frozen=True)
class ForestRow:
    """An estimate on its axis; places are from 0 to 1."""

    name: str
    figure: str
    low: float
    place: float
    width: float
    """Width of the interval."""


@dataclass(frozen=True)
class Forest:
    """Estimates below each other."""

    title: str
    note: str
    rows: tuple[ForestRow, ...]
    axis: Axis
    zero: float | None
    """Place of a line that stands for no difference; None: there is none."""


def forest(title: str, note: str, found: Sequence[Interval], *, with_zero: bool = False) -> Forest | None:
    """Return shares and their intervals on one axis, or differences of shares; None if there are no finite ones.

    Args:
        title: name of the values.
        note: meaning of the estimates, and the better direction.
        found: the estimates.
        with_zero: whether zero, which is on the axis, has a line.
    """
    known = [one for one in found if all(map(math.isfinite, one[2:]))]
    if not known:
        return None
    values = np.array([[one.low, one.value, one.high] for one in known], np.float64)
    axis = value_axis(np.append(values.ravel(), 0.0), is_share=True)
    places = axis.places(values)
    rows = tuple(
        ForestRow(one.name, one.figure, low, place, high - low)
        for one, (low, place, high) in zip(known, places.tolist(), strict=True)
    )
    zero = float(axis.places(np.zeros(1))[0]) if with_zero else None
    return Forest(title, note, rows, axis, zero)
