"""Shards that are small on disk and large when they are read: pieces of bounded rows and bytes, recordings once."""

import os
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysp.corpus import parquet, sources
from raysp.corpus.shards import PIECE_BYTES, PIECE_ROWS, Piece, Shard, cut_groups, input_id
from raysp.ops.recordings import Recordings
from tests.corpora import AUDIO, rows_table, wav

ROWS = 10_000


def write_repeats(path, *, in_struct: bool, num_rows: int = ROWS, recordings: int = 3, num_samples: int = 140_000):
    """Write rows that repeat a few recordings, as a file that holds each of them once."""
    distinct = pa.array([wav(num_samples, seed=seed) for seed in range(recordings)], pa.binary())
    audio = pa.DictionaryArray.from_arrays(pa.array(np.arange(num_rows) % recordings, pa.int32()), distinct)
    if in_struct:
        audio = pa.StructArray.from_arrays([audio, pa.nulls(num_rows, pa.string())], ["bytes", "path"])
    table = pa.table({"id": [str(row) for row in range(num_rows)], "audio": audio})
    pq.write_table(table, path, store_schema=False)
    return path


def shard_of(path) -> Shard:
    found = sources.survey("parquet", str(path), "", None, ("audio", "id"))
    size = path.stat().st_size
    key = input_id(size, "1", found)
    return Shard("x.parquet", str(path), size, "1", found.num_rows, key, cut_groups(found.groups))


def covers(pieces, num_rows: int) -> bool:
    return [row for piece in pieces for row in range(piece.first, piece.end)] == list(range(num_rows))


@pytest.mark.parametrize("in_struct", [False, True])
def test_a_piece_holds_a_bounded_number_of_decoded_bytes(tmp_path, in_struct):
    path = write_repeats(tmp_path / "x.parquet", in_struct=in_struct)
    assert path.stat().st_size < 1_000_000
    pieces = shard_of(path).pieces
    assert covers(pieces, ROWS)
    assert max(piece.num_rows for piece in pieces) * 280_044 <= 1.01 * PIECE_BYTES


def test_a_piece_of_rows_that_are_read_by_path_holds_a_bounded_number_of_them(tmp_path):
    audio = pa.array([{"bytes": None, "path": f"{row}.wav"} for row in range(25_000)], AUDIO)
    pq.write_table(pa.table({"id": [str(row) for row in range(25_000)], "audio": audio}), tmp_path / "x.parquet")
    pieces = shard_of(tmp_path / "x.parquet").pieces
    assert covers(pieces, 25_000)
    assert max(piece.num_rows for piece in pieces) <= PIECE_ROWS


def test_columns_that_a_pipeline_does_not_read_do_not_count(tmp_path):
    path = write_repeats(tmp_path / "x.parquet", in_struct=False)
    [group] = sources.survey("parquet", str(path), "", None, ("id",)).groups
    assert group.num_bytes < 1_000_000


def test_an_ordinary_shard_is_read_as_it_is_stored(tmp_path):
    """Writers begin each column with a dictionary, which in small row groups holds every recording once."""
    rows = [{"bytes": wav(60_000, seed=row), "path": None} for row in range(80)]
    pq.write_table(pa.table({"audio": pa.array(rows, AUDIO)}), tmp_path / "x.parquet", row_group_size=40)
    metadata = pq.read_metadata(tmp_path / "x.parquet")
    assert metadata.row_group(0).column(0).has_dictionary_page
    places = []
    with pa.OSFile(str(tmp_path / "x.parquet")) as file:
        looking = type("Looking", (), {"seek": lambda _, place: places.append(place) or file.seek(place)})()
        looking.read = file.read
        found = [sum(leaf for _, leaf in group) for group in parquet.decoded_bytes(looking, metadata, None)]
        repeats = parquet.Repeats(file, metadata, [0, 1], ("audio",))
    assert found == [metadata.row_group(group).total_byte_size for group in range(2)]
    assert places == [metadata.row_group(0).column(0).dictionary_page_offset]
    assert repeats.most_a_row == 0


CHILD = """
import sys
from pathlib import Path
from tests.corpus.test_decoded import shard_of
from raysp.devices import highest_resident_bytes
from raysp.corpus import sources
from raysp.corpus.shards import Piece
shard = shard_of(Path(sys.argv[1]))
before = highest_resident_bytes()
table = sources.read_table(shard, Piece(0, 3500), ["audio"], as_dictionaries=("audio",))
print(table.num_rows, (highest_resident_bytes() - before) // 2**20)
"""


@pytest.mark.slow
@pytest.mark.parametrize("in_struct", [False, True])
def test_reading_takes_the_memory_of_each_recording_once(tmp_path, in_struct):
    path = write_repeats(tmp_path / "x.parquet", in_struct=in_struct)
    done = subprocess.run([sys.executable, "-c", CHILD, str(path)], capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, done.stderr
    rows, megabytes = map(int, done.stdout.split())
    assert rows == 3500
    assert megabytes < 200


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.sampled_from([None, b"", b"a" * 50, b"b" * 50, b"c" * 70]), min_size=1, max_size=40),
    st.booleans(),
    st.integers(1, 40),
)
def test_rows_are_the_same_as_dictionaries(tmp_path_factory, values, in_struct, row_group_size):
    path = tmp_path_factory.mktemp("same") / "x.parquet"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(parquet, "WORTH_KNOWING", 0)
        _check_same(path, values, in_struct, row_group_size)


def _check_same(path, values, in_struct, row_group_size):
    audio = (
        pa.array([{"bytes": v, "path": None} for v in values], AUDIO) if in_struct else pa.array(values, pa.binary())
    )
    pq.write_table(pa.table({"id": ["x"] * len(values), "audio": audio}), path, row_group_size=row_group_size)
    shard = shard_of(path)
    table = sources.read_table(shard, Piece(0, len(values)), ["audio"], as_dictionaries=("audio",))
    found = []
    for row, value in enumerate(values):
        if value is not None:
            found.append(bytes(Recordings(table, "audio").get(row)))
        else:
            with pytest.raises(Exception, match="null; expected"):
                Recordings(table, "audio").get(row)
    assert found == [value for value in values if value is not None]
    plain = sources.read_table(shard, Piece(0, len(values)), ["audio"])
    assert plain.schema.field("audio").type == (AUDIO if in_struct else pa.binary())


def test_a_dictionary_of_an_arrow_shard_stays_one(tmp_path):
    audio = pa.array([wav(800, seed=row % 2) for row in range(20)], pa.binary()).dictionary_encode()
    table = rows_table(20).select(["id"]).append_column("audio", audio)
    with pa.OSFile(str(tmp_path / "x.arrow"), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    found = sources.survey("arrow", str(tmp_path / "x.arrow"), "")
    size = (tmp_path / "x.arrow").stat().st_size
    url = str(tmp_path / "x.arrow")
    shard = Shard("x.parquet", url, size, "1", 20, input_id(size, "1", found), cut_groups(found.groups), kind="arrow")
    read = sources.read_table(shard, cut_groups(found.groups)[0], ["audio"], as_dictionaries=("audio",))
    assert pa.types.is_dictionary(read.schema.field("audio").type)
    assert bytes(Recordings(read, "audio").get(19)) == wav(800, seed=1)
