"""Estimates below each other with their intervals on one axis, as meta-analyses draw them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from raysp.evaluation.scores import Scores
from raysp.pages.axes import Axis, value_axis


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
    """Differences of shares below each other."""

    title: str
    note: str
    """Meaning of the differences, and the better direction."""
    rows: tuple[ForestRow, ...]
    axis: Axis
    zero: float
    """Place of the line that stands for no difference."""


def forest(title: str, note: str, metric: str, groups: Sequence[tuple[str, Scores]]) -> Forest | None:
    """Return a difference of shares for groups of rows with names, on one axis; None if no group has a finite one."""
    shown = [(name, scores.value(metric), ends) for name, scores in groups if (ends := scores.metrics[metric].ends)]
    if not shown:
        return None
    values = np.array([ends for _, _, ends in shown])
    axis = value_axis(np.append(values.ravel(), 0.0), is_share=True)
    rows = tuple(
        ForestRow(name, figure, low, place, high - low)
        for (name, figure, _), (low, place, high) in zip(shown, axis.places(values).tolist(), strict=True)
    )
    return Forest(title, note, rows, axis, float(axis.places(np.zeros(1))[0]))
