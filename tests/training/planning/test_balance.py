"""Balance of workers over the micro-batches of windows, compared with plain sums."""

import numpy as np
import pytest

from raysp.training.planning.ordering import (
    Epoch,
    Index,
    Sizes,
    imbalance,
    longest_seconds,
    micro_batch_costs,
    numbers_of_workers,
)

SIZES = Sizes(micro_seconds=12, micro_batches=4, window_seconds=100, quadratic_seconds=60)


def an_index(num_rows: int, seed: int = 0) -> Index:
    seconds = np.random.default_rng(seed).gamma(3, 1, num_rows).clip(0.5, 12).astype(np.float32)
    return Index(seconds, np.append(np.arange(0, num_rows, 10), num_rows))


def test_the_cost_of_a_micro_batch_is_that_of_its_longest_row_for_each_of_its_rows():
    index = an_index(90)
    window = next(Epoch(index, SIZES, seed=0, epoch=0).windows_from(0))
    costs = micro_batch_costs(window, index, SIZES)
    assert costs.shape == (window.num_steps, 4)
    for step in range(window.num_steps):
        for number in range(4):
            seconds = index.seconds[window.micro_batch(step, number)].astype(np.float64)
            longest = seconds.max(initial=0.0)
            assert longest_seconds(window, index)[step * 4 + number] == longest
            assert costs[step, number] == pytest.approx(len(seconds) * longest * (1 + longest / 60))


@pytest.mark.parametrize("num_workers", [1, 2, 3, 4, 6])
def test_the_slowest_worker_is_compared_with_the_mean_of_each_step(num_workers):
    costs = np.random.default_rng(1).uniform(1, 2, (5, 4))
    loads = [[sum(step[worker::num_workers]) for worker in range(num_workers)] for step in costs.tolist()]
    expected = sum(map(max, loads)) / sum(sum(load) / num_workers for load in loads)
    assert imbalance(costs, num_workers) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("micro_batches", "own", "expected"),
    [
        (1, [1], ()),
        (2, [1], (2,)),
        (4, [1], (2, 3, 4)),
        (4, [3], (2, 3, 4)),
        (6, [1], (2, 3, 4, 6)),
        (8, [5, 8], (2, 4, 5, 8)),
        (12, [1], (2, 3, 4, 6, 8, 12)),
    ],
)
def test_numbers_of_workers_are_divisors_powers_of_two_those_of_the_plan_and_one_that_does_not_divide(
    micro_batches, own, expected
):
    assert numbers_of_workers(micro_batches, own) == expected
