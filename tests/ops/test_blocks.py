"""Blocks and batches: every recording once, budgets kept, like lengths together; default sizes of a pass."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysp.models import check_checkpoint
from raysp.ops.blocks import BLOCK_BYTES, LEAST_BATCH_SECONDS, batch_seconds, cut_batches, cut_blocks
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


SUMMARY = check_checkpoint(CHECKPOINT)


def test_a_budget_is_what_fits_the_memory_and_never_more_than_is_of_use():
    usual = batch_seconds(SUMMARY, on_gpu=False)
    assert batch_seconds(SUMMARY, on_gpu=True, memory=1e12) == batch_seconds(SUMMARY, on_gpu=True) > usual > 0
    half = 2 * (4 * SUMMARY.num_parameters + usual / 2 * 4 * SUMMARY.activations_per_second)
    alone, shared = (batch_seconds(SUMMARY, on_gpu=False, memory=5e7, at_once=number) for number in (1, 4))
    assert batch_seconds(SUMMARY, on_gpu=False, memory=half) == pytest.approx(usual / 2)
    assert batch_seconds(SUMMARY, on_gpu=False, memory=1e6) == LEAST_BATCH_SECONDS
    assert alone == pytest.approx(4 * shared)
