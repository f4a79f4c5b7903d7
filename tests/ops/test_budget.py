"""Default sizes of a forward pass and of a block."""

from dataclasses import replace

import pytest

from raysp.capabilities import Capability
from raysp.models import check_checkpoint
from raysp.ops.blocks import LEAST_BATCH_SECONDS, MOST_AT_ONCE, Batching, batch_seconds, block_seconds, passes_of_actor
from tests.corpora import CHECKPOINT

SUMMARY = check_checkpoint(CHECKPOINT)
WRITING = replace(SUMMARY, gives=(Capability.TEXT_DECODER,))


def test_a_block_grows_with_the_speed_of_what_labels_it_and_holds_some_batches():
    one, four = (block_seconds(SUMMARY, on_gpu=False, batch_seconds=1, threads=threads) for threads in (1, 4))
    assert four == pytest.approx(4 * one)
    assert block_seconds(SUMMARY, on_gpu=True, batch_seconds=1, threads=1) > four
    for on_gpu in (False, True):
        assert block_seconds(SUMMARY, on_gpu=on_gpu, batch_seconds=1e9, threads=1) >= 4e9
    assert block_seconds(SUMMARY, on_gpu=False, batch_seconds=1e9, threads=1, at_once=9) == 9e9


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


def test_passes_share_the_threads_equally_and_leave_few_over():
    for threads in range(2, 200):
        at_once = passes_of_actor(threads, Batching.FREE)
        assert 2 <= at_once <= MOST_AT_ONCE
        assert threads - at_once * (threads // at_once) <= 1
