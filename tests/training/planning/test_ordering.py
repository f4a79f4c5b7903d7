"""Order of training rows: every row once an epoch, the same for any number of workers and from any step."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysp.training.planning.ordering import Durations, Epoch, Sizes


def index_of(pieces: list[list[float]]) -> Durations:
    seconds = np.asarray([one for piece in pieces for one in piece], np.float32)
    return Durations(seconds, np.concatenate([[0], np.cumsum([len(piece) for piece in pieces])]).astype(np.int64))


def corpus(num_rows: int, *, rows_a_piece: int) -> Durations:
    """Durations with a long tail: a third of a second to two minutes."""
    seconds = np.exp(np.random.default_rng(0).normal(np.log(6), 1.0, num_rows)).clip(0.3, 120).astype(np.float32)
    return Durations(seconds, np.append(np.arange(0, num_rows, rows_a_piece), num_rows).astype(np.int64))


pieces = st.lists(st.lists(st.sampled_from([0.0, 0.1, 0.5, 1.0, 1.0, 3.0, 12.5, 40.0]), max_size=12), max_size=12)
sizes = st.builds(
    Sizes,
    micro_seconds=st.sampled_from([0.05, 1.0, 10.0, 60.0]),
    micro_batches=st.integers(1, 5),
    window_seconds=st.sampled_from([0.5, 20.0, 1000.0]),
    quadratic_seconds=st.sampled_from([5.0, float("inf")]),
    by_length=st.booleans(),
)


@pytest.mark.slow
@given(pieces, sizes, st.integers(0, 3), st.integers(0, 3))
def test_an_epoch_has_every_row_once_and_micro_batches_within_their_budget_or_of_one_row(pieces, sizes, seed, epoch):
    index, found = index_of(pieces), []
    for window in Epoch(index, sizes, seed=seed, epoch=epoch).windows_from(0):
        found += window.rows.tolist()
        for rows in np.split(window.rows, window.edges[1:-1]):
            cost = sizes.cost(index.seconds[rows].astype(np.float64))
            assert len(rows) < 2 or cost.max() * len(rows) <= sizes.micro_seconds * (1 + 1e-9)
    assert sorted(found) == np.flatnonzero(index.seconds).tolist()


@pytest.mark.slow
@given(pieces, sizes, st.data())
def test_an_epoch_continues_from_any_step_as_if_it_had_not_stopped(pieces, sizes, data):
    def steps(step: int) -> list[tuple[int, list[list[int]]]]:
        order = Epoch(index_of(pieces), sizes, seed=5, epoch=1)
        return [
            (window.first_step + at, [window.micro_batch(at, m).tolist() for m in range(sizes.micro_batches)])
            for window in order.windows_from(step)
            for at in range(window.num_steps)
            if window.first_step + at >= step
        ]

    whole = steps(0)
    assert [step for step, _ in whole] == list(range(len(whole)))
    first = data.draw(st.integers(0, len(whole)))
    assert steps(first) == whole[first:]


def test_batches_are_full_and_workers_wait_little_for_each_other():
    index, sizes = corpus(20_000, rows_a_piece=500), Sizes(60, 8, 40_000)
    order, padded = Epoch(index, sizes, seed=3, epoch=0), []
    for window in order.windows_from(0):
        batches = np.split(window.rows, window.edges[1:-1])
        padded += [index.seconds[rows].max(initial=0.0) * len(rows) for rows in batches]
    steps = np.reshape(padded, (-1, sizes.micro_batches))
    assert float(index.seconds.sum()) / steps.sum() > 0.98
    of_workers = np.stack([steps[:, worker::4].sum(1) for worker in range(4)], 1)
    assert of_workers.max(1).sum() / of_workers.mean(1).sum() < 1.04


def test_lengths_are_mixed_within_a_step_unless_steps_go_from_short_rows_to_long_ones():
    index = corpus(4000, rows_a_piece=500)
    mixed, sorted_ones = (Sizes(60, 8, 1e9, by_length=by_length) for by_length in (False, True))

    def longest(sizes: Sizes) -> list[float]:
        window = Epoch(index, sizes, seed=0, epoch=0).window(0)
        steps = [window.rows[window.edges[8 * k] : window.edges[8 * k + 8]] for k in range(window.num_steps)]
        return [float(index.seconds[rows].max()) for rows in steps]

    assert longest(sorted_ones) == sorted(longest(mixed))
    assert longest(mixed) != sorted(longest(mixed))
