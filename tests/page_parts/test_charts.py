"""Axes with few round ticks in a range that holds all values, and histograms with the numbers of rows."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysp.pages.axes import MOST_TICKS, Axis, count_axis, value_axis
from raysp.pages.page_charts import MOST_BARS, SIDE, histogram

NUMBERS = st.floats(-1e12, 1e12, allow_nan=False).filter(lambda value: value == 0 or abs(value) > 1e-12)


def texts(axis: Axis) -> list[str]:
    return [tick.text for tick in axis.ticks]


@pytest.mark.parametrize(
    ("values", "options", "expected"),
    [
        ([0.02, 0.36], {}, ["0", "0.1", "0.2", "0.3", "0.4"]),
        ([0.0, 1.2e-4], {}, ["0", "5e-05", "0.0001", "0.00015"]),
        ([0.061, 0.082], {"is_share": True}, ["6%", "7%", "8%", "9%"]),
        ([0.0612, 0.0635], {"is_share": True}, ["6.1%", "6.2%", "6.3%", "6.4%"]),
        ([5.0], {}, ["0", "5", "10"]),
        ([1.0, 1.0], {"is_share": True}, ["0%", "50%", "100%"]),
        ([0.0, 0.0], {}, ["0", "0.5", "1"]),
        ([-1.0, 1.0], {}, ["-1", "-0.5", "0", "0.5", "1"]),
        ([1e7, 4e7], {}, ["10,000,000", "20,000,000", "30,000,000", "40,000,000"]),
    ],
)
def test_ticks_are_round_and_have_a_sensible_number_of_digits(values, options, expected):
    assert texts(value_axis(np.array(values), **options)) == expected


def check(axis: Axis, values: np.ndarray) -> None:
    places = [tick.place for tick in axis.ticks]
    assert 2 <= len(places) <= MOST_TICKS + 1
    assert places == sorted({*places})
    assert all(-1e-9 <= place <= 1 + 1e-9 for place in places)
    assert len({*texts(axis)}) == len(places)
    found = axis.places(values)
    assert found.min() >= -1e-9
    assert found.max() <= 1 + 1e-9
    assert (np.diff(axis.places(np.sort(values))) >= 0).all()


@given(st.lists(NUMBERS, min_size=1, max_size=5), st.booleans(), st.integers(0, 10**9))
def test_any_values_have_distinct_ticks_in_order(values, is_share, last):
    found = np.array(values)
    check(value_axis(found, is_share=is_share), found)
    check(count_axis(last), np.array([0.0, float(max(1, last))]))


def heights(path: str) -> list[float]:
    """Return the heights of bars as shares of the chart."""
    return [1 - float(top) / SIDE for top in re.findall(r"V([\d.]+)H", path)]


@pytest.mark.parametrize("number", [1, 10_000])
def test_bars_have_the_numbers_of_values(number):
    values = np.random.default_rng(0).normal(size=number)
    chart = histogram("Score", values, "value")
    assert sum(heights(chart.band)) * chart.y.high == pytest.approx(number, rel=0.01)
    assert len(heights(chart.band)) <= MOST_BARS
    assert chart.figure == f"median {np.median(values):.3g}, {values.min():.3g} to {values.max():.3g}"
