"""Pieces: cut from groups by rows, bytes and estimated seconds; seconds are estimated without reading audio."""

from itertools import pairwise

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysp.corpus import sources
from raysp.corpus.shards import (
    LEAST_SECONDS,
    PIECE_BYTES,
    READ_AGAIN_BYTES,
    SECONDS_BY_PATH,
    Group,
    Piece,
    cut_groups,
)
from tests.corpora import AUDIO

HOUR = 3600.0

a_group = st.builds(
    Group, st.integers(0, 3000), st.sampled_from([0, 10**6, 10**8, 10**9]), st.floats(0.0, 4 * HOUR, allow_nan=False)
)
groups = st.lists(a_group, max_size=12)
seconds = st.floats(LEAST_SECONDS, 2 * HOUR)


def held_by(groups: list[Group], piece: Piece) -> tuple[float, float]:
    """Return the bytes and seconds of a piece, if groups are even."""
    num_bytes = found = 0.0
    first = 0
    for group in groups:
        rows = max(0, min(piece.end, first + group.num_rows) - max(piece.first, first))
        if rows:
            num_bytes += group.num_bytes * rows / group.num_rows
            found += group.seconds * rows / group.num_rows
        first += group.num_rows
    return num_bytes, found


def a_row(groups: list[Group]) -> tuple[float, float]:
    """Return the most bytes and seconds of a row."""
    filled = [group for group in groups if group.num_rows]
    return (
        max((group.num_bytes / group.num_rows for group in filled), default=0.0),
        max((group.seconds / group.num_rows for group in filled), default=0.0),
    )


@given(groups, seconds, st.integers(1, 5000))
def test_pieces_cover_every_row_once_and_in_order(groups, seconds, most_rows):
    pieces = cut_groups(groups, seconds, most_rows)
    assert [piece.first for piece in pieces[1:]] == [piece.end for piece in pieces[:-1]]
    assert sum(piece.num_rows for piece in pieces) == sum(group.num_rows for group in groups)
    assert all(0 < piece.num_rows <= most_rows for piece in pieces)


@given(groups, seconds)
def test_a_piece_holds_a_bounded_number_of_bytes_unless_it_is_one_row(groups, seconds):
    for piece in cut_groups(groups, seconds):
        assert held_by(groups, piece)[0] <= PIECE_BYTES + a_row(groups)[0] + len(groups)


@given(groups, seconds)
def test_a_piece_is_no_shorter_than_a_minute_unless_rows_or_bytes_end_it(groups, seconds):
    pieces = cut_groups(groups, seconds, 5000)
    for first, second in pairwise(pieces):
        sizes = [held_by(groups, piece) for piece in (first, second)]
        is_full = first.num_rows + second.num_rows > 5000 or sum(num_bytes for num_bytes, _ in sizes) > PIECE_BYTES - 1
        ends = (sizes[0], sizes[1]) if second is pieces[-1] else (sizes[0],)
        assert is_full or all(found >= LEAST_SECONDS - 1e-3 for _, found in ends)


def test_a_large_group_is_cut_no_finer_than_it_is_worth_to_read_it_again():
    audio = 24 * HOUR
    stored = int(audio * 32_000)
    assert len(cut_groups([Group(8640, 1000, audio)], 300)) == audio / 300
    slices = len(cut_groups([Group(8640, stored, audio)], 300))
    assert slices == int(1 + 2 * READ_AGAIN_BYTES / 32_000)
    assert stored * (slices - 1) / 2 <= READ_AGAIN_BYTES * audio


@pytest.mark.parametrize("nulls", [True, False])
def test_rows_that_are_read_by_path_have_some_seconds_each(tmp_path, nulls):
    audio = pa.array([{"bytes": None, "path": "a.wav"}] * 50, AUDIO) if nulls else pa.array(["a.wav"] * 50)
    pq.write_table(pa.table({"audio": audio}), tmp_path / "x.parquet")
    [group] = sources.survey("parquet", str(tmp_path / "x.parquet"), "", None, ("audio",)).groups
    assert group.seconds == 50 * SECONDS_BY_PATH
