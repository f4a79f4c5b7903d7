"""Charts of the report of a training: curves over its steps, and metrics of its evaluations."""

from collections.abc import Mapping

import numpy as np

from raysp.evaluation.scores import TITLES, Estimate
from raysp.pages import page_charts
from raysp.pages.axes import Floats, count_axis, value_axis
from raysp.pages.page_charts import MOST_POINTS, Chart
from raysp.training.sink import step_evaluation
from raysp.training.sink.step_evaluation import StepEvaluation


def curve(title: str, unit: str, steps: Floats, parts: Floats, wholes: Floats, *, is_share: bool = False) -> Chart:
    """Return the chart of the ratios of two quantities over the steps of a training.

    A point is the ratio of the sums of neighbouring steps where these are many. Steps whose ratio is not finite are
    left out; at least one has a finite one.
    """
    is_finite = np.isfinite(parts / wholes)
    width = -(-int(is_finite.sum()) // MOST_POINTS)
    edges = range(width, int(is_finite.sum()), width)
    points = zip(*(np.split(values[is_finite], edges) for values in (steps, parts, wholes)), strict=True)
    across, up = np.array([(at[-1], part.sum() / whole.sum()) for at, part, whole in points]).T
    x, y = count_axis(int(steps[-1])), value_axis(np.append(up, 0.0), is_share=is_share)
    note = ", ".join(filter(None, (unit, f"mean of {width:,} steps" if width > 1 else "")))
    last = f"last {up[-1]:.1%}" if is_share else f"last {up[-1]:.4g}"
    return Chart(title, note, last, x, y, line=page_charts.line(x.places(across), y.places(up)))


def metric_chart(metric: str, steps: Mapping[int, StepEvaluation], last_step: int, corpus: str = "") -> Chart | None:
    """Return the chart of a metric of evaluations, with its intervals; None if no evaluation defines it.

    Args:
        metric: name of the metric.
        steps: evaluations by step, in order.
        last_step: end of the axis of steps.
        corpus: name of a further corpus, on which they were made.
    """
    best = step_evaluation.best(steps, metric)
    if best is None:
        return None
    estimates = {step: evaluation.metrics.get(metric, Estimate(None)) for step, evaluation in steps.items()}
    spans = {step: ends for step, estimate in estimates.items() if (ends := estimate.ends)}
    is_share, title = metric != step_evaluation.LOSS, TITLES.get(metric, metric)
    values = np.array([*spans.values()], np.float64)
    x, y = count_axis(max(last_step, *spans)), value_axis(values, is_share=is_share)
    across, (low, line, high) = x.places(np.array([*spans], np.float64)), y.places(values.T)
    place = [*spans].index(best)
    before = estimates.get(0, Estimate(None)).value
    notes = [
        *(["95% intervals"] if is_share else []),
        *([] if before is None else [f"{step_evaluation.text(metric, Estimate(before))} before training"]),
    ]
    return Chart(
        title=(f"{corpus}: {title}" if corpus else title[0].upper() + title[1:]),
        note=", ".join(notes),
        figure=f"best {step_evaluation.text(metric, estimates[best])} at step {best:,}",
        x=x,
        y=y,
        line=page_charts.line(across, line),
        band=page_charts.area(across, low, high),
        points=page_charts.dots(across, line),
        best=page_charts.dots(across[[place]], line[[place]]),
    )
