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
    PieceSize,
    cut_groups,
    estimated_seconds,
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


@given(groups, seconds)
def test_a_piece_is_no_longer_than_asked_unless_that_reads_too_much_again(groups, seconds):
    """A short piece takes its neighbour, and is then longer by at most a minute."""
    longest = max(
        (
            group.seconds / max(1, int(1 + 2 * READ_AGAIN_BYTES * group.seconds / max(1, group.num_bytes)))
            for group in groups
        ),
        default=0.0,
    )
    for piece in cut_groups(groups, seconds):
        most = max(seconds, longest, 2 * LEAST_SECONDS)
        assert held_by(groups, piece)[1] <= most + 2 * LEAST_SECONDS + a_row(groups)[1]


@given(st.lists(st.tuples(st.integers(1, 100), st.floats(60, 600)), min_size=1, max_size=12))
def test_groups_that_fit_together_are_one_piece(sizes):
    groups = [Group(rows, 1000, audio) for rows, audio in sizes]
    assert cut_groups(groups, 2 * HOUR) == (Piece(0, sum(rows for rows, _ in sizes)),)


def test_large_groups_are_cut_into_even_slices():
    groups = [Group(2, 0, 60), Group(10, 0, 900), Group(4, 0, 200), Group(1, 0, 150)]
    assert cut_groups(groups, 300) == (
        Piece(0, 2),
        Piece(2, 5),
        Piece(5, 8),
        Piece(8, 12),
        Piece(12, 16),
        Piece(16, 17),
    )


def test_rows_of_less_than_a_minute_make_pieces_of_a_minute():
    assert cut_groups([Group(1, 0, 40.0)] * 5, 60) == (Piece(0, 2), Piece(2, 5))


def test_a_large_group_is_cut_no_finer_than_it_is_worth_to_read_it_again():
    audio = 24 * HOUR
    stored = int(audio * 32_000)
    assert len(cut_groups([Group(8640, 1000, audio)], 300)) == audio / 300
    slices = len(cut_groups([Group(8640, stored, audio)], 300))
    assert slices == int(1 + 2 * READ_AGAIN_BYTES / 32_000)
    assert stored * (slices - 1) / 2 <= READ_AGAIN_BYTES * audio


def test_a_shard_without_rows_has_no_piece():
    assert cut_groups([]) == cut_groups([Group(0, 5, 0.0), Group(0, 1 << 40, 1e9)]) == ()


@given(st.floats(0, 1e9), st.floats(60, 2 * HOUR), st.integers(1, 1000))
def test_a_corpus_makes_enough_pieces_of_at_least_a_minute(audio, most_seconds, num_pieces):
    size = PieceSize(most_seconds, num_pieces)
    found = size.seconds(audio)
    assert LEAST_SECONDS <= found <= most_seconds
    assert audio / found >= num_pieces - 1e-6 or found == LEAST_SECONDS
    assert size.seconds(most_seconds * num_pieces + audio) == pytest.approx(most_seconds)


@pytest.mark.parametrize(
    ("name", "bytes_a_second"),
    [("a.wav", 32_000), ("a/b.AIFF", 32_000), ("a.flac", 16_000), ("a.mp3", 3_200), ("a.opus", 3_200), ("a", 16_000)],
)
def test_seconds_are_estimated_by_the_suffix(name, bytes_a_second):
    assert estimated_seconds(60 * bytes_a_second, name) == pytest.approx(60)


@pytest.mark.parametrize(
    ("names", "bytes_a_second"),
    [
        (["b.wav", None, "a.wav"], 32_000),
        (["b.mp3", "a.mp3", "c.mp3"], 3_200),
        ([None, None, None], 16_000),
        (["b", "c\udcff", "d"], 16_000),
    ],
)
def test_the_footer_of_a_shard_names_the_format(tmp_path, names, bytes_a_second):
    paths = pa.array([None if name is None else name.encode(errors="surrogateescape") for name in names], pa.binary())
    recordings = pa.array([bytes(number) * 32_000 for number in range(1, 4)])
    audio = pa.StructArray.from_arrays([recordings, paths.view(pa.string())], ["bytes", "path"])
    table = pa.table({"audio": audio, "text": ["x" * 5000] * 3})
    pq.write_table(table, tmp_path / "x.parquet", compression="none", use_dictionary=False)
    [group] = sources.survey("parquet", str(tmp_path / "x.parquet"), "", None, ("audio", "text")).groups
    assert (group.num_rows, group.seconds) == (3, pytest.approx(6 * 32_000 / bytes_a_second, rel=0.02))


@pytest.mark.parametrize("nulls", [True, False])
def test_rows_that_are_read_by_path_have_some_seconds_each(tmp_path, nulls):
    audio = pa.array([{"bytes": None, "path": "a.wav"}] * 50, AUDIO) if nulls else pa.array(["a.wav"] * 50)
    pq.write_table(pa.table({"audio": audio}), tmp_path / "x.parquet")
    [group] = sources.survey("parquet", str(tmp_path / "x.parquet"), "", None, ("audio",)).groups
    assert group.seconds == 50 * SECONDS_BY_PATH
