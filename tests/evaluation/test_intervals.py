"""Bootstrap intervals: the same every time, over rows or groups of rows, as wide as theory has it."""

import numpy as np
import pytest

from raysp.evaluation.intervals import Bootstrap, intervals


def mean_of(values):
    def measure(weights):
        return (weights @ values / weights.sum(1))[:, None]

    return measure


@pytest.fixture(scope="module")
def values():
    return np.random.default_rng(5).normal(3.0, 2.0, 400)


def test_an_interval_of_a_mean_is_that_of_the_normal_distribution(values):
    (low,), (high,) = intervals(mean_of(values), np.arange(400), Bootstrap())
    spread = 1.96 * values.std() / np.sqrt(400)
    assert low == pytest.approx(values.mean() - spread, abs=0.1 * spread)
    assert high == pytest.approx(values.mean() + spread, abs=0.1 * spread)


def test_it_is_the_same_every_time_and_depends_on_the_seed(values):
    first, again, other = (intervals(mean_of(values), np.arange(400), Bootstrap(seed=seed)) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_rows_of_a_unit_are_drawn_together_so_that_equal_ones_add_nothing(values):
    alone = intervals(mean_of(values[:20]), np.arange(20), Bootstrap())
    twenty_times = intervals(mean_of(np.repeat(values[:20], 20)), np.repeat(np.arange(20), 20), Bootstrap())
    assert twenty_times == pytest.approx(alone)
    as_rows = intervals(mean_of(np.repeat(values[:20], 20)), np.arange(400), Bootstrap())
    assert np.ptp(as_rows) < 0.4 * np.ptp(alone)


@pytest.mark.parametrize(
    ("units", "draws"), [([], 1000), ([0], 1000), ([0, 0, 0], 1000), ([0, 1], 0)], ids=["none", "one", "same", "draws"]
)
def test_fewer_than_two_units_and_no_draws_have_no_interval(units, draws):
    assert intervals(mean_of(np.ones(len(units))), np.array(units, np.int64), Bootstrap(draws)) is None


def test_draws_that_do_not_define_a_metric_are_left_out():
    def measure(weights):
        first = np.where(weights[:, 0] > 0, weights[:, 0], np.nan)
        return np.stack([first, np.full(len(first), np.nan)], axis=1)

    ends = intervals(measure, np.arange(2), Bootstrap())
    assert ends[:, 0].tolist() == [1.0, 2.0]
    assert np.isnan(ends[:, 1]).all()
