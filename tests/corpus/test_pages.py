"""The limit of memory of decoding, and Parquet pages of every writer: files of kilobytes that decode to gigabytes."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raysp import ShardError, bounds
from raysp.corpus import sources, tables
from raysp.corpus.shards import Shard, cut_groups, input_id
from raysp.corpus.tables import PagedFile, read_whole
from tests.corpora import AUDIO

MIB = bounds.MIB
MOST_MEGABYTES = 350
"""Of a reader beyond its start: its limit of 256 MB, and what it keeps."""

READ = """
import sys
from tests.corpus.test_pages import shard_of
from raysp import bounds
from raysp.corpus import sources, tables
from raysp.devices import highest_resident_bytes
tables.BATCH_BYTES //= 4
tables._half_of_memory = lambda: 0
bounds.MOST_DECODED_BYTES //= 8
shard = shard_of(sys.argv[1], sys.argv[2])
rows, before = 0, highest_resident_bytes()
try:
    for piece in shard.pieces:
        rows += sum(part.num_rows for part in sources.read_batches(shard, piece, sys.argv[3].split(",")))
    print("read")
except Exception as error:
    print(f"{type(error).__name__}: {error}")
print(rows, (highest_resident_bytes() - before) // 2**20)
"""


def shard_of(path, kind="parquet"):
    num_bytes = Path(path).stat().st_size
    found = sources.survey(kind, str(path), "")
    return Shard(
        "x", str(path), num_bytes, "1", found.num_rows, input_id(num_bytes, "1", found), cut_groups(found.groups), kind
    )


def read_in_a_process(path, columns, kind="parquet"):
    """Return what reading says, and the rows and megabytes that it took."""
    command = [sys.executable, "-c", READ, str(path), kind, columns]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said, numbers = done.stdout.splitlines()
    return said, *map(int, numbers.split())


def differences(path, num_rows):
    """A value of a megabyte, and others that are stored as no difference to it."""
    table = pa.table({"id": pa.array(["x" * MIB] * num_rows, pa.large_string())})
    options = {"use_dictionary": False, "column_encoding": {"id": "DELTA_BYTE_ARRAY"}, "store_schema": False}
    pq.write_table(table, path, compression="zstd", **options)


@pytest.mark.slow
def test_values_that_refer_to_others_are_read_in_bounded_memory(tmp_path):
    differences(tmp_path / "a.parquet", 300)
    assert (tmp_path / "a.parquet").stat().st_size < 10 * MIB
    said, rows, megabytes = read_in_a_process(tmp_path / "a.parquet", "id")
    assert (said, rows >= 300) == ("read", True)
    assert megabytes < MOST_MEGABYTES


def shared_in_lists(path, num_rows):
    """A row whose list refers to a value of a megabyte again and again, and rows with empty lists."""
    values = pa.DictionaryArray.from_arrays(pa.array(np.zeros(600, np.int32)), pa.array([b"x" * MIB]))
    lists = pa.ListArray.from_arrays(pa.array([0, *[600] * num_rows], pa.int32()), values)
    table = pa.table({"id": [str(row) for row in range(num_rows)], "texts": lists})
    pq.write_table(table, path, compression="zstd", store_schema=False)


def one_page(path, num_rows):
    audio = pa.array([{"bytes": b"\0" * 300 * MIB, "path": None}], AUDIO)
    pq.write_table(pa.table({"id": ["b"], "audio": audio}), path, compression="zstd", use_dictionary=False)


@pytest.mark.slow
@pytest.mark.parametrize(("write", "column"), [(shared_in_lists, "texts"), (one_page, "audio")])
def test_a_row_that_takes_more_than_the_limit_is_refused_with_its_rows(tmp_path, write, column):
    write(tmp_path / "a.parquet", 300)
    assert (tmp_path / "a.parquet").stat().st_size < MIB
    said, _, megabytes = read_in_a_process(tmp_path / "a.parquet", column)
    assert "a.parquet: rows 0 to " in said
    assert "a row takes more memory to decode than the most allowed (256 MB). Write the shard again, without" in said
    assert megabytes < MOST_MEGABYTES
    said, rows, _ = read_in_a_process(tmp_path / "a.parquet", "id")
    assert (said, rows > 0) == ("read", True)


def read(path, columns):
    shard = shard_of(path, "arrow")
    return sources.read_table(shard, shard.pieces[0], columns)


FRAMES = (b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18")
"""First bytes of data of zstd and LZ4."""


def announcing(data, num_bytes=5 * MIB):
    """Return an Arrow file in which the compressed buffer of some bytes announces 64 GB."""
    for frame in FRAMES:
        place = data.find(num_bytes.to_bytes(8, "little") + frame)
        if place >= 0:
            return data[:place] + (64 << 30).to_bytes(8, "little") + data[place + 8 :]
    raise AssertionError("no such buffer")


@pytest.mark.parametrize("writer", [pa.ipc.new_file, pa.ipc.new_stream])
def test_buffers_that_announce_gigabytes_are_refused(tmp_path, writer, monkeypatch):
    monkeypatch.setattr(tables, "_half_of_memory", lambda: 0)
    table = pa.table({"id": ["a"], "audio": pa.array([b"\0" * 5 * MIB], pa.large_binary())})
    file = io.BytesIO()
    with writer(file, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writing:
        writing.write_table(table)
    (tmp_path / "b.arrow").write_bytes(file.getvalue())
    assert read(tmp_path / "b.arrow", ["id", "audio"]).num_rows == 1
    (tmp_path / "a.arrow").write_bytes(announcing(file.getvalue()))
    message = (
        r"a\.arrow: takes more memory to decode than the most allowed \(2,048 MB\)\. Write the shard again, with fewer"
    )
    with pytest.raises(ShardError, match=message):
        read(tmp_path / "a.arrow", ["id", "audio"])


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("encoding", [None, "PLAIN", "DELTA_LENGTH_BYTE_ARRAY", "DELTA_BYTE_ARRAY"])
def test_pages_of_every_writer_read_as_before(version, encoding):
    texts = [None, "", "ä" * 300, "b"] * 500
    table = pa.table({"id": texts, "n": range(2000), "l": [[1, 2], [], None, [3]] * 500})
    options = {} if encoding is None else {"use_dictionary": False, "column_encoding": {"id": encoding}}
    for compression in ("none", "snappy", "zstd", "lz4", "gzip"):
        file = io.BytesIO()
        written = {"data_page_version": version, "compression": compression, "data_page_size": 200}
        pq.write_table(table, file, row_group_size=700, **written, **options)
        paged = PagedFile(pa.BufferReader(file.getvalue()))
        groups = range(paged.metadata.num_row_groups)
        found = pa.Table.from_batches(one for group in groups for one in paged.batches(group, 333))
        assert found.equals(table), compression
        assert read_whole(pa.BufferReader(file.getvalue()), 10 * MIB).equals(table)


def test_lists_that_share_their_values_are_split_into_rows_within_bounds():
    shared = pa.array(np.zeros(8_000_000, np.uint8))
    lists = pa.ListViewArray.from_arrays(
        pa.array([0] * 200, pa.int32()), pa.array([8_000_000] * 200, pa.int32()), shared
    )
    batch = pa.record_batch({"lists": lists, "in structs": pa.StructArray.from_arrays([lists], ["a"])})
    parts = [part.num_rows for part in tables.parts_of(batch)]
    assert sum(parts) == 200
    assert max(parts) * shared.nbytes <= tables.BATCH_BYTES
