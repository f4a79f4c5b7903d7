"""Decoding a piece: every row in one block with its row_status, waves that are the same on the other side."""

import struct

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from raysp.audio.waveforms import Windowing
from raysp.ops.decoding import Decoding
from raysp.ops.rows import MAX_MESSAGE, plain, waves_of, with_waves
from tests.corpora import AUDIO, wav
from tests.ops.test_long_rows import flac_of_unknown_length

waves = st.lists(
    st.none()
    | st.lists(st.integers(-32768, 32767), max_size=6).map(lambda x: np.array(x, np.int16))
    | st.lists(st.floats(width=32), max_size=6).map(lambda x: np.array(x, np.float32)),
    max_size=8,
)


@settings(deadline=None, max_examples=25)
@given(waves, st.integers(0, 8), st.integers(0, 8))
def test_waves_of_a_slice_are_bit_for_bit_the_same_on_the_other_side(given_waves, first, count):
    table = with_waves(pa.table({"row": list(range(len(given_waves)))}), given_waves)
    all_int16 = all(wave.dtype == np.int16 for wave in given_waves if wave is not None)
    for whole, waves_of_whole in ((table, given_waves), (pa.concat_tables([table] * 2), given_waves * 2)):
        found = waves_of(whole.slice(first, count))
        for wave, expected in zip(found, waves_of_whole[first : first + count], strict=True):
            if expected is None:
                assert wave is None
                continue
            if expected.dtype == np.int16 and not all_int16:
                expected = expected / np.float32(32768)
            assert (wave.dtype, wave.tobytes()) == (expected.dtype, expected.tobytes())


def test_a_block_holds_no_more_than_its_bytes_whatever_headers_claim(monkeypatch):
    for name in ("BLOCK_BYTES", "STREAM_BLOCK_BYTES"):  # of 128 MiB, which take seconds to fill
        monkeypatch.setattr(f"raysp.ops.decoding.{name}", 4 * 40_000)
    lying = bytearray(wav(30_000))
    place = lying.index(b"data")
    lying[place + 4 : place + 8] = struct.pack("<I", 2**31 - 2)
    lengths = [100, 200_000, 200, 30_000, 150_000]
    recordings = [wav(100), flac_of_unknown_length(200_000), wav(200), bytes(lying), wav(150_000)]
    rows = pa.table({"audio": pa.array([{"bytes": one, "path": None} for one in recordings], AUDIO), "id": [*"abcde"]})
    windowing = Windowing.of(
        sample_rate=16_000, frame_stride=320, min_samples=400, window_seconds=1, overlap_seconds=0.25
    )
    found = list(Decoding(audio="audio", windowing=windowing, block_seconds=60)(rows, 0))
    assert max(sum(len(w) for w in waves_of(block) if w is not None) for block in found) <= 40_000
    windows = [row for block in found for row in block.select(["row", "status", "window", "windows"]).to_pylist()]
    for row, length in enumerate(lengths):
        count = windowing.num_windows(length)
        expected = [(place, count if place == count - 1 else None, "ok") for place in range(count)]
        assert [(one["window"], one["windows"], one["status"]) for one in windows if one["row"] == row] == expected


def test_a_message_becomes_one_bounded_line_without_controls():
    assert plain("a\nb\x1b[31m größer") == "a b [31m größer"
    assert plain("x" * (MAX_MESSAGE + 1)) == "x" * (MAX_MESSAGE - 1) + "…"
    assert plain("\t\x9b\ud800a") == "a"
