"""Histograms and bars: their heights are the numbers of rows."""

import re

import numpy as np
import pytest

from raysp.pages.page_charts import MOST_BARS, SIDE, histogram


def heights(path: str) -> list[float]:
    """Return the heights of bars as shares of the chart."""
    return [1 - float(top) / SIDE for top in re.findall(r"V([\d.]+)H", path)]


@pytest.mark.parametrize("number", [1, 50, 100_000])
def test_bars_have_the_numbers_of_values(number):
    values = np.random.default_rng(0).normal(size=number)
    chart = histogram("Score", values, "value")
    assert sum(heights(chart.band)) * chart.y.high == pytest.approx(number, rel=0.01)
    assert len(heights(chart.band)) <= MOST_BARS
    assert chart.figure == f"median {np.median(values):.3g}, {values.min():.3g} to {values.max():.3g}"


def test_the_outer_bars_have_a_hundredth_of_the_values_each():
    values = np.concatenate([[-500.0], np.linspace(0, 10, 1000), [500.0]])
    chart = histogram("Duration", values, "seconds")
    assert (chart.x.low, chart.x.high, chart.note, chart.across) == (0, 10, "rows", "seconds")
    assert sum(heights(chart.band)) * chart.y.high == pytest.approx(len(values), rel=0.01)
    assert chart.figure == "median 5, -500 to 500"
