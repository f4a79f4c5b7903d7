"""Hours and durations of a corpus, estimated from a sample of its rows."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from raysp.labelling.estimates.row_sampling import Sample
from raysp.labelling.planning.costs import Amount

EDGES = (0.0, 1.0, 2.0, 5.0, 10.0, 15.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 7200.0)
"""Lower edges of the bars of a histogram, in seconds; the last bar has no upper one."""
QUANTILE = 1.96
"""Quantile of the normal distribution for an interval of 95 %."""


@dataclass(frozen=True)
class Bar:
    """Share of rows with durations `low <= seconds < high`."""

    low: float
    high: float | None
    """Upper end in seconds; None: any duration from `low` on."""
    share: float


def histogram(durations: Iterable[tuple[float, float]]) -> tuple[Bar, ...]:
    """Return the bars from the shortest to the longest duration; `durations` are seconds with their weights."""
    found = [*durations]
    if not found:
        return ()
    seconds, weights = np.array(found).T
    places = np.searchsorted(EDGES, seconds, "right") - 1
    shares = np.bincount(places, weights, minlength=len(EDGES)) / weights.sum()
    first, last = int(places.min()), int(places.max())
    highs = [*EDGES[1:], None]
    return tuple(Bar(EDGES[index], highs[index], float(shares[index])) for index in range(first, last + 1))


def seconds_to_label(sample: Sample, declared: float | None) -> Amount:
    """Return the seconds of audio that a run labels.

    The interval is that of rows drawn at random or, if that is wider, of the means of the places: rows that are read
    together may be alike.

    Args:
        sample: the sample.
        declared: seconds of all rows of the plan as declared by the source; None: unknown.
    """
    seconds, weights = sample.seconds, sample.weights
    known = np.array([one.seconds or 0.0 for one in sample.statuses])
    if declared is not None and (total := float(weights @ known)) > 0:
        return Amount(declared * float(weights @ seconds) / total, 0.0)
    mean = float(weights @ seconds)
    if sample.num_rows >= sample.rows_todo:
        return Amount(mean * sample.rows_todo, 0.0)
    left = 1 - sample.num_rows / sample.rows_todo
    of_rows = float(weights @ (seconds - mean) ** 2) * left / max(1, sample.num_rows - 1)
    error = max(of_rows, _variance_of_places(sample, mean)) ** 0.5
    return Amount(mean * sample.rows_todo, QUANTILE * error * sample.rows_todo)


def _variance_of_places(sample: Sample, mean: float) -> float:
    """Return the variance of the mean of the means of places, each as often as it was drawn."""
    ends = np.cumsum([len(part.statuses) for part in sample.parts])
    means = np.array([one.mean() for one in np.split(sample.seconds, ends[:-1])])
    drawn = np.array([part.place.weight for part in sample.parts])
    number = int(drawn.sum())
    return float(drawn @ (means - mean) ** 2) / (number * max(1, number - 1)) if len(means) > 1 else 0.0
