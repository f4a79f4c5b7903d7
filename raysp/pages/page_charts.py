"""Charts of a page: paths of an SVG of 1000 by 1000 units that is stretched to its place, and labels beside it."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from raysp.pages.axes import Axis, Floats, count_axis, value_axis

SIDE = 1000
"""Width and height of a chart in units of its paths."""
MOST_POINTS = 500
"""Points of a curve; a longer one is drawn by its range in as many parts."""
MOST_BARS = 40
"""Bars of a histogram."""


@dataclass(frozen=True)
class Chart:
    """A chart. Paths are those of SVG; an empty one is not drawn."""

    title: str
    note: str
    """Unit, scale and smoothing."""
    figure: str
    """The most important value, as text."""
    x: Axis
    y: Axis
    line: str
    raw: str = ""
    """Single values, behind a smoothed line."""
    band: str = ""
    """Area of intervals, or of bars."""
    points: str = ""
    best: str = ""
    """The best of the points."""
    across: str = "step"
    """Name of the horizontal axis."""

    @property
    def grid(self) -> str:
        """Path of horizontal lines at the ticks."""
        return "".join(f"M0 {unit(1 - tick.place)}H{SIDE}" for tick in self.y.ticks)


def histogram(title: str, values: Floats, across: str, *, note: str = "", may_be_log: bool = False) -> Chart:
    """Return the distribution of at least one finite value.

    Args:
        title: name of the values.
        values: the values.
        across: unit of the values.
        note: of which rows they are.
        may_be_log: whether the axis is logarithmic if the values are positive and far apart.
    """
    x = value_axis(values, may_be_log=may_be_log)
    places = np.clip(x.places(values), 0, 1)
    rows = np.histogram(places, bins=min(MOST_BARS, max(8, round(len(values) ** 0.5))), range=(0.0, 1.0))[0]
    y = count_axis(int(rows.max()))
    notes = ", ".join(one for one in ("rows", "log scale" if x.is_log else "", note) if one)
    middle = f"median {np.median(values):.3g}"
    return Chart(title, notes, middle, x, y, line=outline(rows / y.high), band=bars(rows / y.high), across=across)


def bars(heights: Floats) -> str:
    """Return bars beside each other, whose heights are from 0 to 1."""
    edges = np.linspace(0, 1, len(heights) + 1)
    return "".join(
        f"M{unit(left)} {SIDE}V{unit(1 - height)}H{unit(right)}V{SIDE}Z"
        for (left, right), height in zip(pairwise(edges), heights, strict=True)
        if height
    )


def outline(heights: Floats) -> str:
    """Return the upper edge of bars, which is visible without colours."""
    edges = np.linspace(0, 1, len(heights) + 1)
    steps = (f"V{unit(1 - height)}H{unit(right)}" for right, height in zip(edges[1:], heights, strict=True))
    return f"M0 {SIDE}{''.join(steps)}V{SIDE}"


def line(across: Floats, up: Floats) -> str:
    """Return a line through points, of which some are left out if they are many."""
    if len(across) > MOST_POINTS:
        chosen = np.unique(np.linspace(0, len(across) - 1, MOST_POINTS).astype(int))
        across, up = across[chosen], up[chosen]
    points = [f"{unit(x)} {unit(1 - y)}" for x, y in zip(across, up, strict=True)]
    return f"M{'L'.join(points)}" if len(points) > 1 else dots(across, up)


def spread(across: Floats, up: Floats) -> str:
    """Return a line through points; if they are many, through the lowest and the highest of neighbours."""
    if len(across) <= MOST_POINTS:
        return line(across, up)
    first = np.linspace(0, len(across), MOST_POINTS // 2, endpoint=False).astype(int)
    pairs = np.stack([np.minimum.reduceat(up, first), np.maximum.reduceat(up, first)], axis=1)
    return line(np.repeat(across[first], 2), pairs.ravel())


def area(across: Floats, low: Floats, high: Floats) -> str:
    """Return the area between two lines; a vertical line for a single point."""
    if len(across) == 1:
        return f"M{unit(across[0])} {unit(1 - low[0])}V{unit(1 - high[0])}"
    there = [f"{unit(x)} {unit(1 - y)}" for x, y in zip(across, high, strict=True)]
    back = [f"{unit(x)} {unit(1 - y)}" for x, y in zip(across[::-1], low[::-1], strict=True)]
    return f"M{'L'.join([*there, *back])}Z"


def dots(across: Floats, up: Floats) -> str:
    """Return lines of no length, which round ends make dots."""
    return "".join(f"M{unit(x)} {unit(1 - y)}h0" for x, y in zip(across, up, strict=True))


def unit(place: float) -> str:
    """Return a place from 0 to 1 in units of paths."""
    return f"{SIDE * place:.1f}".removesuffix(".0")


@dataclass(frozen=True)
class Share:
    """A bar of a list of bars with names, as of classes."""

    name: str
    figure: str
    share: float
    """Share of the longest bar, from 0 to 1."""


def shares(names: Sequence[str], numbers: Sequence[float], figures: Sequence[str]) -> tuple[Share, ...]:
    """Return bars whose lengths are proportional to numbers, of which none is negative."""
    longest = max([*numbers, 0.0]) or 1.0
    return tuple(
        Share(name, figure, number / longest) for name, number, figure in zip(names, numbers, figures, strict=True)
    )
