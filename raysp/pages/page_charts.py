"""Charts of a page: paths of an SVG of 1000 by 1000 units that is stretched to its place, and its labels."""

from dataclasses import dataclass

import numpy as np

from raysp.pages.axes import Axis, Floats, count_axis, value_axis

SIDE = 1000
"""Width and height of a chart in units of its paths."""
MOST_POINTS = 60
"""Points of a curve; a longer one is drawn by means of neighbouring values."""
MOST_BARS = 40
"""Bars of a histogram."""


@dataclass(frozen=True)
class Chart:
    """A chart. Paths are those of SVG; an empty one is not drawn."""

    title: str
    note: str
    """Unit, and meaning of a point or bar."""
    figure: str
    """The most important value, as text."""
    x: Axis
    y: Axis
    line: str
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


def histogram(title: str, values: Floats, across: str, *, note: str = "") -> Chart:
    """Return the distribution of at least one finite value; the outer bars have a hundredth of the values each.

    Args:
        title: name of the values.
        values: the values.
        across: unit of the values.
        note: the rows that it covers.
    """
    x = value_axis(np.percentile(values, [1, 99]))
    rows = np.histogram(x.places(values), bins=min(MOST_BARS, max(8, round(len(values) ** 0.5))), range=(0.0, 1.0))[0]
    y = count_axis(int(rows.max()))
    figure = f"median {np.median(values):.3g}, {values.min():.3g} to {values.max():.3g}"
    edge, notes = outline(rows / y.high), f"rows, {note}" if note else "rows"
    return Chart(title, notes, figure, x, y, line=edge, band=f"{edge}Z", across=across)


def outline(heights: Floats) -> str:
    """Return the upper edge of bars, which is visible without colours."""
    edges = np.linspace(0, 1, len(heights) + 1)
    steps = (f"V{unit(1 - height)}H{unit(right)}" for right, height in zip(edges[1:], heights, strict=True))
    return f"M0 {SIDE}{''.join(steps)}V{SIDE}"


def line(across: Floats, up: Floats) -> str:
    """Return a line through points."""
    points = [f"{unit(x)} {unit(1 - y)}" for x, y in zip(across, up, strict=True)]
    return f"M{'L'.join(points)}" if len(points) > 1 else dots(across, up)


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
