"""Quantiles in one pass: bins of four significant digits, compared with those of numpy over all numbers."""

from fractions import Fraction

import numpy as np
import pytest

from raysp.labelling.reports.quantile_bins import MOST, QuantileBins, rounded_down

TENS = 10.0 ** np.arange(-17, 18)
DRAW = np.random.default_rng(0)
NUMBERS = np.concatenate(
    [
        DRAW.normal(size=20_000) * 10.0 ** DRAW.integers(-16, 17, 20_000),
        np.round(DRAW.normal(size=5_000), 3),
        np.arange(-2_000, 2_000),
        *(sign * near for sign in (1, -1) for near in (TENS, np.nextafter(TENS, 0), np.nextafter(TENS, np.inf))),
        [0.0, -0.0, 5e-324, -5e-324, 1e-19, -1e-19, MOST, -MOST, 1e308, -1e308],
    ]
)


def test_a_bin_begins_at_most_a_thousandth_below_its_numbers():
    starts = rounded_down(NUMBERS)
    is_usual = np.abs(NUMBERS) > 1e-17
    assert (starts <= NUMBERS).all()
    assert (NUMBERS - starts <= 1.001e-3 * np.abs(NUMBERS))[is_usual].all()


@pytest.mark.parametrize("share", ["0.001", "0.07", "0.5", "0.999"])
def test_quantiles_are_those_of_numpy_in_any_batches(share):
    numbers = NUMBERS[::20]
    weights = DRAW.random(len(numbers))
    bins = QuantileBins()
    for part in np.array_split(np.arange(len(numbers)), 7):
        bins.add(numbers[part], weights[part])
    kept = bins.quantile(Fraction(share))
    exact = np.quantile(numbers, float(share), method="inverted_cdf")
    assert kept.bound == rounded_down(np.array([exact]))[0]
    assert kept.number == (kept.bound <= numbers).sum()
    assert kept.weight == pytest.approx(weights[kept.bound <= numbers].sum())
    assert (bins.number, bins.weight) == (len(numbers), pytest.approx(weights.sum()))


def test_a_share_of_whole_rows_is_not_rounded_up():
    bins = QuantileBins()
    bins.add(np.arange(100.0), np.ones(100))
    assert bins.quantile(Fraction("0.07")) == (6.0, 94, 94.0)  # 0.07 * 100 is above 7
