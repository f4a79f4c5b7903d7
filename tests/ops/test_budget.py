"""Default sizes of a forward pass and of a block."""

from dataclasses import replace

import pytest

from raysp.capabilities import Capability
from raysp.models import check_checkpoint
from raysp.ops.blocks import LEAST_BATCH_SECONDS, MOST_AT_ONCE, Batching, batch_seconds, block_seconds, passes_of_actor
from tests.corpora import CHECKPOINT

SUMMARY = check_checkpoint(CHECKPOINT)


@pytest.mark.parametrize("on_gpu", [False, True])
def test_a_block_holds_at_least_some_batches(on_gpu):
    for seconds in (1.0, 30.0, 1e9):
        assert block_seconds(SUMMARY, on_gpu=on_gpu, batch_seconds=seconds, threads=1) >= 4 * seconds


def test_a_block_grows_with_the_speed_of_what_labels_it():
    one, four = (block_seconds(SUMMARY, on_gpu=False, batch_seconds=1, threads=threads) for threads in (1, 4))
    assert four == pytest.approx(4 * one)
    assert block_seconds(SUMMARY, on_gpu=True, batch_seconds=1, threads=1) > four


def test_a_block_holds_as_many_batches_as_run_at_once():
    assert block_seconds(SUMMARY, on_gpu=False, batch_seconds=1e9, threads=1, at_once=9) == 9e9


def test_a_gpu_is_given_larger_batches():
    assert batch_seconds(SUMMARY, on_gpu=True) > batch_seconds(SUMMARY, on_gpu=False) > 0


def test_a_budget_is_what_fits_the_memory_and_never_more_than_is_of_use():
    usual = batch_seconds(SUMMARY, on_gpu=False)
    assert batch_seconds(SUMMARY, on_gpu=False, memory=1e12) == usual
    weights = 4 * SUMMARY.num_parameters
    half = 2 * (weights + usual / 2 * 4 * SUMMARY.activations_per_second)
    assert batch_seconds(SUMMARY, on_gpu=False, memory=half) == pytest.approx(usual / 2)
    assert batch_seconds(SUMMARY, on_gpu=False, memory=1e6) == LEAST_BATCH_SECONDS
    assert batch_seconds(SUMMARY, on_gpu=True, memory=1e12) == batch_seconds(SUMMARY, on_gpu=True)


@pytest.mark.parametrize("on_gpu", [False, True])
def test_a_budget_has_more_rows_whose_texts_are_written_together(on_gpu):
    writing = replace(SUMMARY, gives=(Capability.TEXT_DECODER,))
    assert batch_seconds(writing, on_gpu=on_gpu) > batch_seconds(SUMMARY, on_gpu=on_gpu)
    padding = replace(writing, padded_samples=480_000, windows_together=8)
    assert batch_seconds(padding, on_gpu=on_gpu) >= 240


def test_a_budget_of_coarse_frames_has_more_seconds():
    assert SUMMARY.hidden_stride == 320
    usual = batch_seconds(SUMMARY, on_gpu=False)
    assert batch_seconds(replace(SUMMARY, hidden_stride=640), on_gpu=False) == 60 > usual
    assert batch_seconds(replace(SUMMARY, hidden_stride=1280), on_gpu=False) == 120
    assert batch_seconds(replace(SUMMARY, hidden_stride=0), on_gpu=False) == usual  # without frames


def test_passes_that_run_at_once_share_the_memory():
    alone, shared = (batch_seconds(SUMMARY, on_gpu=False, memory=5e7, at_once=number) for number in (1, 4))
    assert alone == pytest.approx(4 * shared)


def test_passes_share_the_threads_equally_and_leave_few_over():
    assert [passes_of_actor(threads, Batching.FREE) for threads in (1, 2, 3, 4, 6, 8)] == [1, 2, 3, 4, 3, 4]
    for threads in range(2, 200):
        at_once = passes_of_actor(threads, Batching.FREE)
        assert 2 <= at_once <= MOST_AT_ONCE
        assert threads - at_once * (threads // at_once) <= 1
