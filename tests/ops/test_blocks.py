"""Blocks and batches: every recording once, budgets kept, like lengths together."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysp.ops import blocks
from raysp.ops.blocks import (
    PASS_COST,
    cut_batches,
    cut_blocks,
    share_evenly,
    would_wait,
)

durations = st.lists(st.floats(0, 100), max_size=40)
lengths = st.lists(st.integers(1, 500), max_size=40)


@given(durations, st.floats(0.5, 300), st.floats(1, 1e8))
def test_every_recording_is_in_one_block_that_keeps_both_budgets_unless_it_is_larger(
    seconds, block_seconds, bytes_per_second
):
    cut = cut_blocks(seconds, block_seconds=block_seconds, bytes_per_second=bytes_per_second)
    assert sorted(index for block in cut for index in block) == list(range(len(seconds)))
    assert (cut and all(cut)) or cut == [[]]
    for block in cut:
        held = sum(seconds[index] for index in block)
        with_sound = [index for index in block if seconds[index]]
        assert held <= block_seconds * 1.002 or len(with_sound) == 1
        assert held * bytes_per_second <= blocks.BLOCK_BYTES * 1.002 or len(with_sound) == 1


@given(lengths, st.integers(1, 5000))
def test_a_batch_holds_no_more_padded_samples_than_its_budget_unless_it_is_one_window(num_samples, max_samples):
    for batch in cut_batches(num_samples, max_samples):
        assert max(num_samples[index] for index in batch) * len(batch) <= max_samples or len(batch) == 1


@given(st.lists(st.integers(1, 100), min_size=1, max_size=8), st.integers(1, 400))
def test_no_other_cut_of_the_sorted_windows_computes_less(num_samples, max_samples):
    found = _cost([[num_samples[i] for i in batch] for batch in cut_batches(num_samples, max_samples)], max_samples)
    windows = sorted(num_samples, reverse=True)
    for ends in itertools.product([False, True], repeat=len(windows) - 1):
        edges = [0, *(i + 1 for i, is_end in enumerate(ends) if is_end), len(windows)]
        other = [windows[a:b] for a, b in itertools.pairwise(edges)]
        if all(batch[0] * len(batch) <= max_samples or len(batch) == 1 for batch in other):
            assert found <= _cost(other, max_samples) + 1e-6


def _cost(batches, max_samples):
    return sum(batch[0] * len(batch) + PASS_COST * max_samples for batch in batches)


@given(lengths, st.integers(1, 400), st.integers(1, 4))
def test_passes_that_run_at_once_have_equal_work(num_samples, max_samples, at_once):
    cut = cut_batches(num_samples, max_samples)
    shared = share_evenly(cut, at_once)
    assert sorted(index for batch in shared for index in batch) == list(range(len(num_samples)))
    assert all(shared)
    whole = len(cut) - len(cut) % at_once
    assert shared[:whole] == cut[:whole]
    for batch in cut[whole:]:
        parts = [part for part in shared[whole:] if {*part} <= {*batch}]
        assert len(parts) == min(at_once, len(batch))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
    for batch in shared:
        assert [num_samples[i] for i in batch] == sorted((num_samples[i] for i in batch), reverse=True)


@pytest.mark.parametrize(
    ("padded", "at_once", "expected"),
    [
        ([30, 11], 2, True),
        ([30, 11, 10, 8], 2, False),
        ([30, 11, 10, 8], 4, True),
        ([15, 15, 15], 2, True),
        ([5, 5, 5], 1, False),
    ],
)
def test_passes_run_one_after_another_where_threads_would_be_idle(padded, at_once, expected):
    assert would_wait(padded, at_once) is expected


@pytest.mark.parametrize(
    ("options", "expected"),
    [({"kinds": [*"babaa"]}, [[3], [4, 1], [0, 2]]), ({"in_order": True}, [[0, 1], [2], [3], [4]])],
)
def test_blocks_hold_one_kind_after_the_other_or_neighbours(options, expected):
    assert cut_blocks([3, 1, 2, 5, 4], block_seconds=6, bytes_per_second=1, **options) == expected
