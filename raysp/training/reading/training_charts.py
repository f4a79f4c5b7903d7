"""Charts of the report of a training: curves over its steps, and metrics of its evaluations."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from raysp.evaluation.scores import Estimate
from raysp.pages import page_charts
from raysp.pages.axes import Floats, count_axis, value_axis
from raysp.pages.page_charts import Chart
from raysp.training.sink import evaluation_records
from raysp.training.sink.evaluation_records import StepEvaluation

SMOOTHED_SHARE = 1 / 50
"""Share of the steps over which a curve is averaged."""
FEWEST_SMOOTHED = 5
"""Steps over which a curve of 50 steps or more is averaged at least."""


@dataclass(frozen=True)
class Curve:
    """Values of consecutive steps: each a ratio of two quantities of the step.

    Attributes:
        title: name of the values.
        unit: unit of the values; empty for none.
        steps: numbers of the steps.
        parts: numerators.
        wholes: denominators; None: ones.
        is_smoothed: whether to draw averages before the values of single steps.
        from_zero: whether the axis begins at 0.
        is_share: whether values are shares from 0 to 1.
        may_be_log: whether the axis may be logarithmic.
    """

    title: str
    unit: str
    steps: Floats
    parts: Floats
    wholes: Floats | None = None
    is_smoothed: bool = True
    from_zero: bool = False
    is_share: bool = False
    may_be_log: bool = False

    def chart(self) -> Chart:
        """Return the chart of the curve, which has at least one finite value; others are left out."""
        wholes = np.ones_like(self.parts) if self.wholes is None else np.maximum(self.wholes, 1e-9)
        is_finite = np.isfinite(self.parts / wholes)
        steps, parts, wholes = self.steps[is_finite], self.parts[is_finite], wholes[is_finite]
        width = _smoothed_steps(len(steps)) if self.is_smoothed else 1
        raw, smooth = parts / wholes, _sums(parts, width) / _sums(wholes, width)
        x = count_axis(int(self.steps[-1]))
        y = value_axis(raw, from_zero=self.from_zero, is_share=self.is_share, may_be_log=self.may_be_log)
        notes = [self.unit, "log scale" if y.is_log else "", f"mean of {width:,} steps" if width > 1 else ""]
        last = f"{smooth[-1]:.1%}" if self.is_share else f"{smooth[-1]:.4g}"
        return Chart(
            self.title,
            ", ".join(note for note in notes if note),
            f"last {last}",
            x,
            y,
            line=page_charts.line(x.places(steps), y.places(smooth)),
            raw=page_charts.spread(x.places(steps), y.places(raw)) if width > 1 else "",
        )


def metric_chart(metric: str, found: Mapping[int, StepEvaluation], last_step: int, corpus: str = "") -> Chart | None:
    """Return the chart of a metric of evaluations, with its intervals; None if no evaluation defines it.

    Args:
        metric: name of the metric.
        found: evaluations by step, in order.
        last_step: end of the axis of steps.
        corpus: name of a further corpus, on which they were made.
    """
    best = evaluation_records.best(found, metric)
    if best is None:
        return None
    estimates = {step: one.metrics.get(metric, Estimate(None)) for step, one in found.items()}
    known = {step: ends for step, estimate in estimates.items() if (ends := _ends(estimate))}
    is_share, title = metric != evaluation_records.LOSS, evaluation_records.title(metric)
    values = np.array([*known.values()], np.float64)
    x, y = count_axis(max(last_step, *known)), value_axis(values, is_share=is_share, may_be_log=not is_share)
    across, (low, line, high) = x.places(np.array([*known], np.float64)), y.places(values.T)
    place = [*known].index(best)
    notes = ("95% intervals" if is_share else "", "log scale" if y.is_log else "", _before(metric, estimates))
    return Chart(
        title=(f"{corpus}: {title}" if corpus else title[0].upper() + title[1:]),
        note=", ".join(note for note in notes if note),
        figure=f"best {evaluation_records.text(metric, estimates[best])} at step {best:,}",
        x=x,
        y=y,
        line=page_charts.line(across, line),
        band=page_charts.area(across, low, high),
        points=page_charts.dots(across, line),
        best=page_charts.dots(across[[place]], line[[place]]),
    )


def _before(metric: str, estimates: Mapping[int, Estimate]) -> str:
    """Return the value of the weights before the first step as text; empty if it is not known."""
    found = estimates.get(0, Estimate(None))
    return "" if found.value is None else f"{evaluation_records.text(metric, Estimate(found.value))} before training"


def _ends(estimate: Estimate) -> tuple[float, float, float] | None:
    """Return lower end, value and upper end of an estimate; without an interval the value; None if it is undefined."""
    value, low, high = estimate.value, estimate.low, estimate.high
    if value is None or not math.isfinite(value):
        return None
    return value if low is None else low, value, value if high is None else high


def _smoothed_steps(number: int) -> int:
    """Return the number of steps to average over: a share of all, and at least a few unless there are hardly any."""
    return max(1, min(FEWEST_SMOOTHED, number // 10), round(number * SMOOTHED_SHARE))


def _sums(values: Floats, width: int) -> Floats:
    """Return the sums over the `width` values around each value; fewer at the ends."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    places = np.arange(len(values))
    first, end = np.maximum(0, places - width // 2), np.minimum(len(values), places + (width + 1) // 2)
    found: Floats = total[end] - total[first]
    return found
