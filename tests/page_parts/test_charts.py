"""Histograms and bars: their heights are the numbers of rows."""

import re

import numpy as np
import pytest

from raysp.pages.page_charts import MOST_BARS, SIDE, histogram, shares


def heights(path: str) -> list[float]:
    """Return the heights of bars as shares of the chart."""
    return [1 - float(top) / SIDE for top in re.findall(rf"M[\d.]+ {SIDE}V([\d.]+)H", path)]


@pytest.mark.parametrize("number", [1, 50, 100_000])
def test_bars_have_the_numbers_of_values(number):
    values = np.random.default_rng(0).normal(size=number)
    chart = histogram("Score", values, "value")
    assert sum(heights(chart.band)) * chart.y.high == pytest.approx(number, rel=0.01)
    assert len(heights(chart.band)) <= MOST_BARS
    assert chart.figure == f"median {np.median(values):.3g}"


def test_values_far_apart_have_a_logarithmic_axis():
    chart = histogram("Duration", np.array([0.1, 1.0, 100.0]), "seconds", may_be_log=True)
    assert (chart.x.is_log, chart.note, chart.across) == (True, "rows, log scale", "seconds")


def test_equal_values_are_one_bar():
    assert heights(histogram("Score", np.full(9, -0.5), "value").band) == [pytest.approx(9 / 10, abs=0.11)]


def test_the_longest_bar_is_whole():
    assert [bar.share for bar in shares("ab", [4, 1], ["4", "1"])] == [1.0, 0.25]
    assert shares([], [], []) == ()
