"""Windows, in which every frame is taken from where it is farther from an edge; clips; and samples as FLAC."""

import io
import itertools
from dataclasses import replace

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from raysp.audio.encoding import cut_parts, encode_flac
from raysp.audio.waveforms import Windowing, cut_windows


@st.composite
def windowings(draw):
    stride = draw(st.integers(1, 20))
    needed = stride + draw(st.integers(0, 30))  # what a frame sees is never less than a stride
    window = draw(st.integers(needed, 400))
    overlap = draw(st.integers(0, window // 2))
    return Windowing.of(
        sample_rate=1, frame_stride=stride, min_samples=needed, window_seconds=window, overlap_seconds=overlap
    )


def cut(windowing: Windowing, num_samples: int, chunk_samples: list[int]) -> list[tuple[np.ndarray, bool]]:
    """Cut the recording 0, 1, 2, ... that comes in chunks of these sizes, over and over."""
    samples = np.arange(num_samples, dtype=np.float32)

    def chunks():
        start, k = 0, 0
        while True:
            yield samples[start : start + chunk_samples[k % len(chunk_samples)]]
            start += chunk_samples[k % len(chunk_samples)]
            k += 1
            if start >= num_samples:
                return

    return list(cut_windows(chunks(), windowing))


recordings = st.tuples(windowings(), st.integers(0, 3000), st.lists(st.integers(1, 900), min_size=1, max_size=4))


@given(recordings)
def test_every_frame_is_owned_by_the_window_in_which_it_is_farther_from_an_edge(recording):
    windowing, num_samples, sizes = recording
    windows, owned = cut(windowing, num_samples, sizes), []
    assert [is_last for _, is_last in windows] == [False] * (len(windows) - 1) + [True]
    assert len(windows) == windowing.num_windows(num_samples)
    starts = [number * windowing.step_frames for number in range(len(windows) + 1)]
    ends = [start + windowing.num_frames(len(wave)) for start, (wave, _) in zip(starts, windows, strict=False)]
    for number, (wave, is_last) in enumerate(windows):
        start = number * windowing.step_samples
        assert wave.tolist() == list(range(start, num_samples if is_last else start + windowing.window_samples))
        first, end = windowing.owned_frames(number, len(wave), is_last=is_last)
        frames = range(starts[number] + first, starts[number] + end)
        for frame in frames:
            if number > 0 and frame < ends[number - 1]:
                assert frame - starts[number] >= ends[number - 1] - 1 - frame
            if not is_last and frame >= starts[number + 1]:
                assert ends[number] - 1 - frame >= frame - starts[number + 1]
        owned += frames
    assert owned == list(range(windowing.num_frames(num_samples)))


def test_a_window_that_holds_no_frame_is_refused():
    with pytest.raises(ValueError, match=r"window_seconds=0\.02 is 320 samples .*; the model needs at least 400"):
        Windowing.of(sample_rate=16_000, frame_stride=320, min_samples=400, window_seconds=0.02, overlap_seconds=0)


def test_a_stream_holds_no_more_than_a_window_and_a_chunk():
    drawn = 0

    def chunks():
        nonlocal drawn
        for _ in range(100):
            drawn += 10_000
            yield np.zeros(10_000, np.int16)

    windowing = Windowing.of(
        sample_rate=16_000, frame_stride=320, min_samples=400, window_seconds=1, overlap_seconds=0.25
    )
    for number, (wave, _) in enumerate(cut_windows(chunks(), windowing)):
        assert drawn - number * windowing.step_samples <= 16_000 + 320 + 10_000
        assert wave.base is None


QUIET = Windowing.of(
    sample_rate=16_000, frame_stride=320, min_samples=400, window_seconds=3, overlap_seconds=1, at_quiet_points=True
)


class TestQuietPoints:
    @settings(max_examples=30)
    @given(st.integers(0, 200_000), st.lists(st.integers(1, 50_000), min_size=1, max_size=5), st.integers(0, 100))
    def test_windows_follow_each_other_without_a_gap_for_any_chunks(self, num_samples, sizes, seed):
        wave = np.random.default_rng(seed).integers(-900, 900, num_samples).astype(np.int16)
        windows = list(cut_windows(iter([wave]), QUIET))
        assert np.concatenate([window for window, _ in windows]).tolist() == wave.tolist()
        assert [is_last for _, is_last in windows] == [False] * (len(windows) - 1) + [True]
        for window, _ in windows[:-1]:
            assert 2 * 16_000 <= len(window) <= 3 * 16_000
            assert len(window) % 320 == 0
        assert len(windows) == 1 or len(windows[-1][0]) >= 400
        again = [window for window, _ in cut_windows(_chunks(wave, sizes), QUIET)]
        assert [len(window) for window in again] == [len(window) for window, _ in windows]

    def test_a_window_ends_in_the_pause(self):
        wave = np.random.default_rng(0).integers(-9000, 9000, 6 * 16_000).astype(np.int16)
        wave[int(2.3 * 16_000) : int(2.6 * 16_000)] //= 1000
        first, _ = next(cut_windows(iter([wave]), QUIET))
        assert len(first) / 16_000 == pytest.approx(2.45, abs=0.06)

    @pytest.mark.parametrize("size", [100_000, 1_000])
    def test_the_rest_behind_the_last_joint_is_what_the_model_needs(self, size):
        windowing = replace(QUIET, least_samples=1_600)
        for num_samples in range(48_001, 49_700, 197):
            wave = np.random.default_rng(0).integers(-9000, 9000, num_samples).astype(np.int16)
            wave[47_000:] //= 1000
            windows = [window for window, _ in cut_windows(_chunks(wave, [size]), windowing)]
            assert np.concatenate(windows).tolist() == wave.tolist()
            assert [len(window) >= 1_600 for window in windows] == [True, True]


def _chunks(wave, sizes):
    start = 0
    for size in itertools.cycle(sizes):
        yield wave[start : start + size]
        start += size
        if start >= len(wave):
            return


def test_integers_survive_flac_bit_for_bit_and_values_beyond_full_scale_are_clipped():
    samples = np.random.default_rng(0).integers(-(2**15), 2**15, 16_000).astype(np.int16)
    found, rate = soundfile.read(io.BytesIO(encode_flac(samples, 16_000)), dtype="int16")
    assert rate == 16_000
    assert np.array_equal(found, samples)
    found, _ = soundfile.read(io.BytesIO(encode_flac(np.array([2.0, -2.0, 0.5], np.float32), 8000)), dtype="int16")
    assert found.tolist() == [32767, -32768, 16384]


@given(
    st.lists(st.integers(0, 20), max_size=8),
    st.lists(st.integers(0, 120), max_size=10).map(sorted),
)
def test_parts_are_slices_of_the_whole_recording(lengths, edges):
    whole = np.arange(sum(lengths), dtype=np.float32)
    chunks = np.split(whole, np.cumsum(lengths)[:-1]) if lengths else []
    parts = list(zip(edges[::2], edges[1::2], strict=False))
    found = [one.tolist() for one in cut_parts(iter(chunks), parts)]
    assert found == [whole[first:end].tolist() for first, end in parts]


def test_nothing_behind_the_last_part_is_decoded():
    def chunks():
        yield np.zeros(10, np.float32)
        pytest.fail("decoded further")

    assert [len(one) for one in cut_parts(chunks(), [(2, 5), (5, 10)])] == [3, 5]
