"""Samples as FLAC, and parts of recordings that are decoded in chunks."""

import io

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from raysp.audio.encoding import cut_parts, encode_flac


@pytest.mark.parametrize("num_samples", [1, 16_000])
def test_integers_survive_flac_bit_for_bit(num_samples):
    samples = np.random.default_rng(0).integers(-(2**15), 2**15, num_samples).astype(np.int16)
    found, rate = soundfile.read(io.BytesIO(encode_flac(samples, 16_000)), dtype="int16")
    assert rate == 16_000
    assert np.array_equal(found, samples)
    assert encode_flac(samples, 16_000) == encode_flac(samples.copy(), 16_000)


def test_values_beyond_full_scale_are_clipped():
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
