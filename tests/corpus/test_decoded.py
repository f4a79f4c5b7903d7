"""Shards that are small on disk and large when they are read: pieces of bounded rows and bytes, recordings once."""

import os
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raysp.corpus import sources
from raysp.corpus.shards import PIECE_BYTES, PIECE_ROWS, Shard, cut_groups, input_id
from tests import corpora
from tests.corpora import AUDIO, wav

ROWS = 10_000


def write_repeats(path, *, in_struct: bool, num_rows: int = ROWS):
    """Write rows that repeat three recordings, as a file that holds each of them once."""
    distinct = pa.array([wav(140_000 + 1600 * seed, seed=seed) for seed in range(3)], pa.binary())
    audio = pa.DictionaryArray.from_arrays(pa.array(np.arange(num_rows) % 3, pa.int32()), distinct)
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
    [group] = sources.survey("parquet", str(path), "", None, ("id",)).groups
    assert group.num_bytes < 1_000_000  # the recordings are not read


def test_a_piece_of_rows_that_are_read_by_path_holds_a_bounded_number_of_them(tmp_path):
    audio = pa.array([{"bytes": None, "path": f"{row}.wav"} for row in range(25_000)], AUDIO)
    pq.write_table(pa.table({"id": [str(row) for row in range(25_000)], "audio": audio}), tmp_path / "x.parquet")
    pieces = shard_of(tmp_path / "x.parquet").pieces
    assert covers(pieces, 25_000)
    assert max(piece.num_rows for piece in pieces) <= PIECE_ROWS


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


@pytest.mark.parametrize("in_struct", [False, True])
def test_each_row_of_a_shard_that_repeats_recordings_has_its_own(tmp_path, in_struct):
    """300 rows decode to 84 MB, beyond which recordings are held once."""
    rows = corpora.read(write_repeats(tmp_path / "x.parquet", in_struct=in_struct, num_rows=300))
    assert [row["seconds"] for row in rows] == [8.75, 8.85, 8.95] * 100
