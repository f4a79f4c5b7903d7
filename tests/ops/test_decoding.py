"""Decoding a piece: every row in one block with its row_status, waves that are the same on the other side."""

import struct

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysp.audio.waveforms import Windowing
from raysp.ops.decoding import Decoding, seconds_left
from raysp.ops.rows import MAX_MESSAGE, ROW_SCHEMA, plain, waves_of, with_waves
from tests.audio.test_decoding import encode, noise, with_flac_streaminfo
from tests.corpora import AUDIO, wav

WINDOWING = Windowing.of(sample_rate=16_000, frame_stride=320, min_samples=400, window_seconds=30, overlap_seconds=5)

waves = st.lists(
    st.none()
    | st.lists(st.integers(-32768, 32767), max_size=6).map(lambda x: np.array(x, np.int16))
    | st.lists(st.floats(width=32), max_size=6).map(lambda x: np.array(x, np.float32)),
    max_size=8,
)


def table_of(count: int) -> pa.Table:
    return pa.table({"row": list(range(count))})


def decoding(**changes: object) -> Decoding:
    return Decoding(**{"audio": "audio", "windowing": WINDOWING, "block_seconds": 1.0, **changes})


def blocks_of(op: Decoding, rows: pa.Table, first: int = 0) -> list[pa.Table]:
    return list(op(rows, first))


def piece(recordings: list[object], **columns: list[object]) -> pa.Table:
    values = [{"bytes": r, "path": None} if isinstance(r, bytes) else r for r in recordings]
    return pa.table({"audio": pa.array(values, AUDIO), "id": list(range(len(values))), **columns})


def decoded(op: Decoding, rows: pa.Table, first: int = 0) -> list[dict[str, object]]:
    """Return the rows of all blocks in order, each with its number of samples."""
    tables = blocks_of(op, rows, first)
    found = [
        {**row, "samples": None if wave is None else len(wave)}
        for table in tables
        for row, wave in zip(table.select(ROW_SCHEMA.names).to_pylist(), waves_of(table), strict=True)
    ]
    return sorted(found, key=lambda row: row["row"])


class TestWaves:
    @settings(deadline=None, max_examples=25)
    @given(waves, st.integers(0, 8), st.integers(0, 8))
    def test_waves_of_a_slice_are_bit_for_bit_the_same_on_the_other_side(self, given_waves, first, count):
        table = with_waves(table_of(len(given_waves)), given_waves)
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


class TestDecoding:
    @pytest.mark.lengthy
    @settings(deadline=None, max_examples=40)
    @given(
        st.lists(st.sampled_from([0, 1, 800, 8000, 20_000, None]), max_size=8), st.floats(0.05, 3), st.integers(0, 99)
    )
    def test_every_row_of_a_piece_is_in_exactly_one_block(self, lengths, block_seconds, first):
        rows = piece([b"" if n is None else wav(n) for n in lengths])
        found = decoded(decoding(block_seconds=block_seconds), rows, first)
        assert [row["row"] for row in found] == list(range(first, first + len(lengths)))
        assert [row["samples"] for row in found] == lengths
        assert [row["seconds"] for row in found] == [None if n is None else n / 16_000 for n in lengths]

    def test_blocks_hold_like_lengths_and_the_longest_come_first(self):
        lengths = [1600, 16_000, 3200, 15_000]
        blocks = blocks_of(decoding(), piece([wav(n) for n in lengths]))
        assert [block.column("row").to_pylist() for block in blocks] == [[1], [3], [2, 0]]
        assert [block.num_rows for block in blocks_of(decoding(), piece([]))] == [0]

    @pytest.mark.parametrize(
        ("recording", "status", "error_type", "message"),
        [
            (None, "error", "no_audio", "null; expected the bytes of an audio file"),
            ({"bytes": None, "path": "/etc/passwd"}, "error", "path_not_allowed", "only the path '/etc/passwd'; embed"),
            (b"garbage" * 100, "error", "unsupported_format", "700 bytes beginning"),
            (wav(48_001), "skipped", "too_long", "longer than max_seconds=3; stopped after"),
        ],
    )
    def test_a_recording_without_samples_says_why_and_its_neighbours_are_decoded(
        self, recording, status, error_type, message
    ):
        found = decoded(decoding(max_seconds=3), piece([wav(100), recording, wav(200)]))
        assert [row["samples"] for row in found] == [100, None, 200]
        assert [row["status"] for row in found] == ["ok", status, "ok"]
        assert (found[1]["error_type"], found[1]["seconds"]) == (error_type, None)
        assert message in found[1]["error_message"]

    def test_a_header_that_lies_does_not_count_as_audio_left_once_it_is_decoded(self):
        raw = bytearray(wav(16_000))
        place = raw.index(b"data")
        raw[place + 4 : place + 8] = struct.pack("<I", 2**31 - 2)
        rows = [wav(16_000), wav(40 * 16_000), bytes(raw), None, wav(16_000), wav(8000)]
        blocks = blocks_of(decoding(), piece(rows))
        left = [seconds_left(block) for block in blocks]
        assert left == sorted(left, reverse=True)
        assert left[-1] == 0
        is_decoded = [2 in block.column("row").to_pylist() for block in blocks].index(True)
        assert max(left[is_decoded:]) <= 2.5  # the three short rows


def test_measured_durations_are_those_of_all_joined_streams():
    first, second = encode(noise(40_000), container="FLAC"), encode(noise(30_000), container="OGG")
    uncounted = with_flac_streaminfo(first, num_frames=0)
    statuses = decoding().measure(piece([first, first + second, first + first, uncounted]), 0)
    assert [one.seconds for one in statuses] == [2.5, 4.375, 5.0, 2.5]


messages = st.text(max_size=60) | st.text(alphabet="\x1b[\n\t\x9b\ud800a", max_size=20)


@settings(deadline=None, max_examples=25)
@given(messages | st.text(min_size=600, max_size=700))
def test_a_message_becomes_one_bounded_line_without_controls(message):
    found = plain(message)
    assert len(found) <= MAX_MESSAGE
    assert not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in found)
    assert found.encode("utf-8").decode() == found
    assert plain("a\nb\x1b[31m größer") == "a b [31m größer"
    assert plain("x" * 501) == "x" * 499 + "…"
