"""Blocks and batches: every recording once, budgets kept, like lengths together; default sizes of a pass."""

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysp.capabilities import Capability
from raysp.models import check_checkpoint
from raysp.ops.blocks import BLOCK_BYTES, LEAST_BATCH_SECONDS, PASS_COST, batch_seconds, cut_batches, cut_blocks
from tests.corpora import CHECKPOINT

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
        assert held * bytes_per_second <= BLOCK_BYTES * 1.002 or len(with_sound) == 1


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


SUMMARY = check_checkpoint(CHECKPOINT)
WRITING = replace(SUMMARY, gives=(Capability.TEXT_DECODER,))


def test_a_budget_is_what_fits_the_memory_and_never_more_than_is_of_use():
    usual = batch_seconds(SUMMARY, on_gpu=False)
    assert batch_seconds(SUMMARY, on_gpu=True, memory=1e12) == batch_seconds(SUMMARY, on_gpu=True) > usual > 0
    half = 2 * (4 * SUMMARY.num_parameters + usual / 2 * 4 * SUMMARY.activations_per_second)
    alone, shared = (batch_seconds(SUMMARY, on_gpu=False, memory=5e7, at_once=number) for number in (1, 4))
    assert batch_seconds(SUMMARY, on_gpu=False, memory=half) == pytest.approx(usual / 2)
    assert batch_seconds(SUMMARY, on_gpu=False, memory=1e6) == LEAST_BATCH_SECONDS
    assert alone == pytest.approx(4 * shared)


@pytest.mark.parametrize("on_gpu", [False, True])
def test_a_budget_is_larger_for_texts_that_are_written_together_and_for_coarse_frames(on_gpu):
    usual = batch_seconds(SUMMARY, on_gpu=on_gpu)
    assert batch_seconds(WRITING, on_gpu=on_gpu) > usual
    assert batch_seconds(replace(WRITING, padded_samples=480_000, windows_together=8), on_gpu=on_gpu) >= 240
    assert batch_seconds(replace(SUMMARY, hidden_stride=1280), on_gpu=on_gpu) == (usual if on_gpu else 120)
    assert batch_seconds(replace(SUMMARY, hidden_stride=0), on_gpu=on_gpu) == usual  # without frames
