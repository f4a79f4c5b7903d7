"""Charts: what their paths show, however many steps there are."""

import re

import numpy as np
import pytest

from raysp.evaluation.scores import Estimate, Scores
from raysp.pages.page_charts import MOST_POINTS, Chart
from raysp.training.reading.training_charts import curve, metric_chart
from raysp.training.sink.step_evaluation import StepEvaluation


def points(path: str) -> np.ndarray:
    """Return the points of a path of M and L as (N, 2)."""
    return np.array([[float(one) for one in pair.split()] for pair in re.split("[ML]", path)[1:]])


def drawn(values, wholes=None) -> Chart:
    parts = np.array(values, np.float64)
    return curve("Loss", "", np.arange(1.0, len(parts) + 1), parts, np.ones(len(parts)) if wholes is None else wholes)


def evaluated(*values: tuple[float | None, ...], metric: str = "wer") -> dict[int, StepEvaluation]:
    made = {10 * i: Scores(1, {metric: Estimate(*value)}, {}) for i, value in enumerate(values, 1)}
    return {done: StepEvaluation(metric, scores, {}) for done, scores in made.items()}


def test_a_short_curve_is_drawn_as_it_is():
    chart = drawn([4.0, 0.0, 2.0])
    np.testing.assert_allclose(points(chart.line), [[333.3, 0], [666.7, 1000], [1000, 500]])
    assert (chart.note, chart.figure) == ("", "last 2")


@pytest.mark.parametrize(("steps", "width"), [(9, 1), (60, 1), (61, 2), (100_000, 1667)])
def test_a_point_of_a_long_curve_is_the_mean_of_neighbouring_steps(steps, width):
    chart = drawn(np.arange(float(steps)))
    assert chart.note == (f"mean of {width:,} steps" if width > 1 else "")
    assert len(points(chart.line)) <= MOST_POINTS
    assert chart.figure == f"last {np.arange(float(steps))[(steps - 1) // width * width :].mean():.4g}"


def test_values_that_are_not_finite_are_left_out():
    assert len(points(drawn([1.0, np.inf, 2.0]).line)) == 2


def test_a_metric_has_its_interval_and_its_best_point():
    chart = metric_chart("wer", evaluated((0.4, 0.3, 0.5), (0.2, 0.1, 0.3), (None,), (0.3, 0.2, 0.4)), 40)
    assert chart is not None
    assert (chart.title, chart.note) == ("WER", "95% intervals")
    assert chart.figure == "best 20.00% (10.00% to 30.00%) at step 20"
    assert points(chart.line)[:, 0].tolist() == [250, 500, 1000]
    assert chart.band.endswith("Z")
    assert chart.points.count("h0") == 3
    assert chart.best == f"M500 {points(chart.line)[1, 1]:g}h0"


def test_a_metric_that_no_evaluation_defines_has_no_chart():
    assert metric_chart("wer", evaluated((None,), (float("nan"),)), 20) is None
    assert metric_chart("cer", evaluated((0.1,)), 10) is None
