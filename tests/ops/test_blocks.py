"""Blocks, batches and packs: every recording once, budgets kept, like lengths together or few frames unused."""

import itertools
import random
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysp.models.kernels.pack_sizes import whole_parts
from raysp.ops import blocks
from raysp.ops.blocks import (
    PASS_COST,
    Grouping,
    PackLimits,
    cut_batches,
    cut_blocks,
    cut_in_order,
    cut_packs,
    fit_in_order,
    fit_rows,
    of_longest_thread,
    share_evenly,
    would_wait,
)
from raysp.ops.precision import Batching

durations = st.lists(st.floats(0, 100), max_size=40)
lengths = st.lists(st.integers(1, 500), max_size=40)


@given(durations, st.floats(0.5, 300), st.floats(1, 1e8))
def test_every_recording_is_in_exactly_one_block(seconds, block_seconds, bytes_per_second):
    cut = cut_blocks(seconds, block_seconds=block_seconds, bytes_per_second=bytes_per_second)
    assert sorted(index for block in cut for index in block) == list(range(len(seconds)))
    assert len(cut) >= 1
    assert all(cut) or cut == [[]]


@given(durations, st.floats(0.5, 300), st.floats(1, 1e8))
def test_a_block_keeps_both_budgets_unless_one_recording_is_larger(seconds, block_seconds, bytes_per_second):
    for block in cut_blocks(seconds, block_seconds=block_seconds, bytes_per_second=bytes_per_second):
        held = sum(seconds[index] for index in block)
        with_sound = [index for index in block if seconds[index]]
        assert held <= block_seconds * 1.002 or len(with_sound) == 1
        assert held * bytes_per_second <= blocks.BLOCK_BYTES * 1.002 or len(with_sound) == 1


@given(durations, st.floats(0.5, 300))
def test_blocks_follow_each_other_by_length(seconds, block_seconds):
    cut = cut_blocks(seconds, block_seconds=block_seconds, bytes_per_second=1)
    flat = [seconds[index] for block in cut for index in block]
    assert flat == sorted(seconds, reverse=True)


@given(st.lists(st.floats(1, 2), min_size=20, max_size=40), st.floats(10, 20))
def test_blocks_are_even_so_that_no_actor_is_left_with_a_rest(seconds, block_seconds):
    held = [
        sum(seconds[index] for index in block)
        for block in cut_blocks(seconds, block_seconds=block_seconds, bytes_per_second=1)
    ]
    assert max(held[:-1], default=0) - min(held[:-1], default=0) <= 2.1


@given(durations, st.floats(0.5, 300))
def test_the_same_piece_is_cut_the_same_way_again(seconds, block_seconds):
    first, second = (cut_blocks(seconds, block_seconds=block_seconds, bytes_per_second=1) for _ in range(2))
    assert first == second


@given(lengths, st.integers(1, 5000))
def test_every_window_is_in_exactly_one_batch(num_samples, max_samples):
    cut = cut_batches(num_samples, max_samples)
    assert sorted(index for batch in cut for index in batch) == list(range(len(num_samples)))
    assert all(cut)


@given(lengths, st.integers(1, 5000))
def test_a_batch_holds_no_more_padded_samples_than_its_budget_unless_it_is_one_window(num_samples, max_samples):
    for batch in cut_batches(num_samples, max_samples):
        assert max(num_samples[index] for index in batch) * len(batch) <= max_samples or len(batch) == 1


@given(lengths, st.integers(1, 5000))
def test_batches_follow_each_other_by_length(num_samples, max_samples):
    cut = cut_batches(num_samples, max_samples)
    assert [num_samples[i] for batch in cut for i in batch] == sorted(num_samples, reverse=True)


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
        ([], 2, False),
        ([30], 2, True),
        ([30, 11], 2, True),
        ([30, 11, 10, 8], 2, False),
        ([30, 11, 10, 8], 4, True),
        ([26, 24, 22, 19, 14, 8], 2, False),
        ([15, 15, 15], 2, True),
        ([5, 5, 5], 1, False),
    ],
)
def test_passes_run_one_after_another_where_threads_would_be_idle(padded, at_once, expected):
    assert would_wait(padded, at_once) is expected


@given(durations, st.floats(0.5, 300), st.integers(1, 20))
def test_neighbours_are_grouped_in_order_up_to_the_limits_of_a_group(seconds, most_seconds, most_rows):
    groups = cut_in_order(seconds, most_seconds=most_seconds, most_rows=most_rows)
    assert [index for first, end in groups for index in range(first, end)] == list(range(len(seconds)))
    for first, end in groups:
        assert 0 < end - first <= most_rows
        assert sum(seconds[first:end]) <= most_seconds * 1.001 or end - first == 1
    for (first, end), (_, last) in itertools.pairwise(groups):
        assert end - first == most_rows or sum(seconds[first : end + 1]) > most_seconds * 0.999
        assert last > end


FRAMES_PER_SECOND = 50
PACK = 302 * FRAMES_PER_SECOND
BLOCK_SECONDS = 2_097  # of 16 kHz samples in 128 MiB of 4-byte samples
LEAST_FILL = 0.98

LENGTHS = {
    "train-like": lambda draw: 1 + 29 * draw.betavariate(1.4, 2.3),
    "test-like": lambda draw: 1 + 29 * draw.random() ** 3,
    "long-tail": lambda draw: min(30.0, draw.lognormvariate(1.8, 0.8)),
}
"""Seconds of rows of three corpora."""


def mixed_blocks(kind: str, hours: float) -> Iterator[list[int]]:
    """Draw blocks of rows of mixed lengths, in frames with a gap of two."""
    draw = random.Random(1)
    for _ in range(round(hours * 3600 / BLOCK_SECONDS)):
        rows: list[int] = []
        while sum(rows) < BLOCK_SECONDS * FRAMES_PER_SECOND:
            rows.append(round(FRAMES_PER_SECOND * LENGTHS[kind](draw)) + 2)
        yield rows[:-1]


@given(st.lists(st.integers(1, 60), max_size=60), st.integers(60, 200))
def test_every_row_is_in_one_pack_and_no_pack_is_too_long(frames, size):
    packs = fit_rows(frames, size)
    assert sorted(index for pack in packs for index in pack) == list(range(len(frames)))
    assert all(0 < sum(frames[index] for index in pack) <= size for pack in packs)


@given(st.lists(st.integers(1, 60), max_size=60), st.integers(60, 200), st.integers(1, 5))
def test_no_pack_has_more_rows_than_it_may(frames, size, rows):
    for packs in (fit_rows(frames, size, rows), fit_in_order(frames, size, rows)):
        assert sorted(index for pack in packs for index in pack) == list(range(len(frames)))
        assert all(len(pack) <= rows and sum(frames[index] for index in pack) <= size for pack in packs)


@given(st.lists(st.integers(1, 60), max_size=60), st.integers(60, 200))
def test_no_two_packs_fit_into_one(frames, size):
    filled = sorted(sum(frames[index] for index in pack) for pack in fit_rows(frames, size))
    assert len(filled) < 2 or filled[0] + filled[1] > size


def test_a_row_that_is_longer_than_a_pack_is_refused():
    with pytest.raises(ValueError, match="a row takes 61 frames, expected at most the 60 of a pack"):
        fit_rows([3, 61], 60)


def computed(frames: Sequence[int], packs: Sequence[Sequence[int]]) -> int:
    return sum(whole_parts(sum(frames[row] for row in pack)) for pack in packs)


@given(st.lists(st.integers(1, 900), max_size=60), st.integers(0, 1_500))
def test_packs_of_whole_products_hold_every_row_and_are_as_full_as_those_of_any_size(frames, most):
    packs = cut_packs(frames, most)
    size = whole_parts(max([most, *frames]))
    assert sorted(row for pack in packs for row in pack) == list(range(len(frames)))
    assert all(0 < sum(frames[row] for row in pack) <= size for pack in packs)
    assert computed(frames, packs) <= computed(frames, fit_rows(frames, size))
    assert computed(frames, packs) <= computed(frames, [[row] for row in range(len(frames))])


@pytest.mark.parametrize("stride", [320, 640, 1280])
@pytest.mark.parametrize("seconds", [1, 3, 10, 15, 20, 30])
def test_packs_of_rows_of_one_length_are_full(seconds, stride):
    frames = [-(-seconds * 16_000 // stride)] * (3_600 // seconds)
    cut = Grouping(Batching.PACKED, stride).cut([seconds * 16_000] * len(frames), 60 * 16_000)
    assert sum(frames) / computed(frames, cut) >= 0.95


def test_a_budget_below_a_product_still_fills_one():
    cut = Grouping(Batching.PACKED, 1280).cut([16_000] * 40, 16_000)
    assert [*map(len, cut)] == [19, 19, 2]


@pytest.mark.parametrize("kind", LENGTHS)
def test_packs_of_mixed_lengths_are_full(kind):
    used = allotted = 0
    for rows in mixed_blocks(kind, hours=10):
        used += sum(rows)
        allotted += PACK * len(fit_rows(rows, PACK))
    assert used / allotted >= LEAST_FILL


RATE, PACK_SAMPLES = 16_000, 60 * 16_000


def piece_of(kind: str, seconds: float) -> list[float]:
    """Draw the seconds of the rows of a piece."""
    draw, rows = random.Random(2), [0.0]
    while sum(rows) < seconds:
        rows.append(LENGTHS[kind](draw))
    return rows[1:]


def blocks_of_packs(seconds: Sequence[float], stride: int, **kwargs: object) -> list[list[int]]:
    limits = PackLimits(RATE, stride, PACK_SAMPLES)
    return cut_blocks(seconds, **{"block_seconds": 240, "bytes_per_second": 4 * RATE, "packs": limits, **kwargs})


def share_used(blocks: Sequence[Sequence[int]], samples: Sequence[int], stride: int, at_once: int) -> float:
    """Return the share of frames that rows use of all that threads compute or idle for, block after block."""
    grouping, used, taken = Grouping(Batching.PACKED, stride, at_once), 0, 0
    for block in blocks:
        of_block = [samples[row] for row in block]
        passes = [[of_block[row] for row in one] for one in grouping.cut(of_block, PACK_SAMPLES)]
        assert not any(grouping.exceeds(one, PACK_SAMPLES) for one in passes)
        used += sum(-(-count // stride) for count in of_block)
        taken += at_once * of_longest_thread([grouping.padded(one) // stride for one in passes], at_once)
    return used / taken


@pytest.mark.parametrize("stride", [320, 640, 1280])
@pytest.mark.parametrize("at_once", [1, 2, 4])
@pytest.mark.parametrize("kind", LENGTHS)
def test_packs_of_a_piece_are_full_though_headers_are_off_by_a_frame(kind, at_once, stride):
    seconds, draw = piece_of(kind, 2 * 3600), random.Random(3)
    samples = [round(RATE * one) + draw.choice([-1, 0, 0, 0, 0, 1]) * stride // 2 for one in seconds]
    assert share_used(blocks_of_packs(seconds, stride), samples, stride, at_once) >= LEAST_FILL


@given(durations, st.sampled_from([320, 1280]), st.floats(10, 300), st.floats(1, 1e8))
def test_blocks_of_packs_have_every_recording_once_and_keep_their_bytes(seconds, stride, block_seconds, rate):
    cut = blocks_of_packs(seconds, stride, block_seconds=block_seconds, bytes_per_second=rate)
    assert sorted(index for block in cut for index in block) == list(range(len(seconds)))
    assert all(cut) or cut == [[]]
    longest = max(seconds, default=0) + stride / RATE
    for block in cut:
        assert rate * sum(seconds[row] for row in block) <= max(blocks.BLOCK_BYTES, rate * longest) * 1.002


@given(st.lists(st.sampled_from("ab"), min_size=30, max_size=60))
def test_no_pack_of_a_block_has_recordings_of_two_kinds(kinds):
    for block in blocks_of_packs([5.0] * len(kinds), 320, kinds=kinds):
        found = [kinds[row] for row in block]
        assert found == sorted(found)


@given(st.lists(st.integers(1, 700), max_size=60), st.integers(0, 1_000), st.integers(1, 3))
def test_packs_in_hand_at_once_end_no_later_than_those_in_order_or_of_one_size(frames, most, at_once):
    size = whole_parts(max([most, *frames]))

    def last(packs: list[list[int]]) -> int:
        return of_longest_thread([whole_parts(sum(frames[row] for row in pack)) for pack in packs], at_once)

    found = cut_packs(frames, most, at_once)
    assert sorted(row for pack in found for row in pack) == list(range(len(frames)))
    for other in (fit_in_order(frames, size), fit_rows(frames, size)):
        assert last(found) <= last(share_evenly(other, at_once))


def test_a_pack_is_halved_only_when_the_budget_was_lowered():
    grouping = Grouping(Batching.PACKED, 1280)
    rows = [160_000] * 6
    assert grouping.cut(rows, PACK_SAMPLES) == [[0, 1, 2, 3, 4, 5]]
    assert not grouping.exceeds([*rows, 20_000], PACK_SAMPLES)  # 61.25 s, which three products of 20.48 s hold
    assert grouping.exceeds([*rows, 24_000], PACK_SAMPLES)
    assert grouping.exceeds(rows, PACK_SAMPLES // 2)
    assert not grouping.exceeds([2 * PACK_SAMPLES], PACK_SAMPLES)


class TestPacksOfOneSize:
    GROUPING = Grouping(Batching.PACKED, 320, size=512)

    def test_each_has_the_same_frames_whatever_its_windows(self):
        for seconds in ([1.0], [0.02], [5.0, 5.0], [10.2]):
            assert self.GROUPING.frames([round(16_000 * one) for one in seconds]) == 512
            assert self.GROUPING.padded([round(16_000 * one) for one in seconds]) == 512 * 320

    def test_windows_fill_them(self):
        lengths = [320 * frames for frames in (300, 250, 200, 200, 40, 20)]
        cut = self.GROUPING.cut(lengths, 512 * 320)
        assert sorted(row for pack in cut for row in pack) == [0, 1, 2, 3, 4, 5]
        assert len(cut) == 2
        assert not any(self.GROUPING.exceeds([lengths[row] for row in pack], 512 * 320) for pack in cut)

    def test_a_longer_window_goes_alone_and_the_others_keep_their_size(self):
        lengths = [320 * frames for frames in (100, 700, 412)]
        cut = self.GROUPING.cut(lengths, 512 * 320)
        assert cut == [[1], [0, 2]]
        assert [self.GROUPING.frames([lengths[row] for row in pack]) for pack in cut] == [768, 512]

    def test_lack_of_memory_leaves_fewer_windows_in_them_and_their_size(self):
        lengths = [320 * 100] * 5
        assert self.GROUPING.exceeds(lengths, 256 * 320)
        cut = self.GROUPING.cut(lengths, 256 * 320)
        assert [len(pack) for pack in cut] == [2, 2, 1]
        assert {self.GROUPING.frames([lengths[row] for row in pack]) for pack in cut} == {512}

    def test_none_has_more_windows_than_its_tables_have_rows(self):
        assert (self.GROUPING.rows, Grouping(Batching.PACKED, 320, size=15_104).rows) == (32, 256)
        cut = self.GROUPING.cut([320 * 2] * 70, 512 * 320)
        assert sorted(row for pack in cut for row in pack) == [*range(70)]
        assert [len(pack) for pack in cut] == [32, 32, 6]
        assert self.GROUPING.exceeds([320 * 2] * 33, 512 * 320)
        assert not self.GROUPING.exceeds([320 * 2] * 32, 512 * 320)

    def test_no_windows_are_no_packs(self):
        assert self.GROUPING.cut([], 512 * 320) == []


def test_blocks_hold_recordings_of_one_kind_after_the_other():
    blocks = cut_blocks([3, 1, 2, 5, 4], block_seconds=6, bytes_per_second=1, kinds=["b", "a", "b", "a", "a"])
    assert blocks == [[3], [4, 1], [0, 2]]
