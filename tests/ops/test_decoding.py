"""Decoding a piece: every row in one block with its row_status, waves that are the same on the other side."""

import struct

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysp.audio.waveforms import Windowing
from raysp.ops.decoding import Decoding
from raysp.ops.rows import MAX_MESSAGE, ROW_SCHEMA, plain, waves_of, with_waves
from raysp.storage.audio_root import AudioRoot
from tests.corpora import AUDIO, wav
from tests.ops.test_long_rows import flac_of_unknown_length

WINDOWING = Windowing.of(sample_rate=16_000, frame_stride=320, min_samples=400, window_seconds=30, overlap_seconds=5)

waves = st.lists(
    st.none()
    | st.lists(st.integers(-32768, 32767), max_size=6).map(lambda x: np.array(x, np.int16))
    | st.lists(st.floats(width=32), max_size=6).map(lambda x: np.array(x, np.float32)),
    max_size=8,
)


def decoding(**changes: object) -> Decoding:
    return Decoding(**{"audio": "audio", "windowing": WINDOWING, "block_seconds": 1.0, **changes})


def blocks_of(op: Decoding, rows: pa.Table, first: int = 0) -> list[pa.Table]:
    return list(op(rows, first))


def piece(recordings: list[object], **columns: list[object]) -> pa.Table:
    """Return rows of recordings: bytes, None, or the path of a file."""
    values = [{"bytes": None, "path": r} if isinstance(r, str) else {"bytes": r, "path": None} for r in recordings]
    return pa.table({"audio": pa.array(values, AUDIO), "id": list(range(len(values))), **columns})


def decoded(op: Decoding, rows: pa.Table, first: int = 0) -> list[dict[str, object]]:
    """Return the rows of all blocks in order, each with its number of samples."""
    found = [
        {**row, "samples": None if wave is None else len(wave)}
        for table in blocks_of(op, rows, first)
        for row, wave in zip(table.select(ROW_SCHEMA.names).to_pylist(), waves_of(table), strict=True)
    ]
    return sorted(found, key=lambda row: row["row"])


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


@pytest.mark.lengthy
@settings(deadline=None, max_examples=40)
@given(st.lists(st.sampled_from([0, 1, 800, 8000, 20_000, None]), max_size=8), st.floats(0.05, 3), st.integers(0, 99))
def test_every_row_of_a_piece_is_in_exactly_one_block(lengths, block_seconds, first):
    rows = piece([b"" if n is None else wav(n) for n in lengths])
    found = decoded(decoding(block_seconds=block_seconds), rows, first)
    assert [row["row"] for row in found] == list(range(first, first + len(lengths)))
    assert [row["samples"] for row in found] == lengths
    assert [row["seconds"] for row in found] == [None if n is None else n / 16_000 for n in lengths]


def test_files_stay_in_their_order_with_errors_in_their_places(tmp_path):
    names = [f"{number}.wav" for number in range(40)]
    for number, name in enumerate(names):
        if number not in (0, 17, 39):
            (tmp_path / name).write_bytes(wav(400 + number))
    rows = piece([*names, "/etc/passwd", wav(48_001)])
    found = decoded(decoding(root=AudioRoot(str(tmp_path)), max_seconds=3), rows)
    errors = {0: "not_found", 17: "not_found", 39: "not_found", 40: "path_not_allowed", 41: "too_long"}
    for row in found:
        expected = errors.get(row["row"])
        assert (row["error_type"], row["samples"]) == (expected, None if expected else 400 + row["row"])


def test_a_block_holds_no_more_than_its_bytes_whatever_headers_claim(monkeypatch):
    for name in ("BLOCK_BYTES", "STREAM_BLOCK_BYTES"):  # of 128 MiB, which take seconds to fill
        monkeypatch.setattr(f"raysp.ops.decoding.{name}", 4 * 40_000)
    lying = bytearray(wav(30_000))
    place = lying.index(b"data")
    lying[place + 4 : place + 8] = struct.pack("<I", 2**31 - 2)
    lengths = [100, 200_000, 200, 30_000, 150_000]
    rows = piece([wav(100), flac_of_unknown_length(200_000), wav(200), bytes(lying), wav(150_000)])
    windowing = Windowing.of(
        sample_rate=16_000, frame_stride=320, min_samples=400, window_seconds=1, overlap_seconds=0.25
    )
    found = blocks_of(decoding(windowing=windowing, block_seconds=60), rows)
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
