"""Arrow IPC shards: both formats, in pieces, from strangers."""

import re
import struct

import pyarrow as pa
import pytest

import raysp
from tests import corpora
from tests.corpora import a_pipeline, rows_table, write_shard


def write(path, table, *, stream=False, rows=10, compression=None):
    options = pa.ipc.IpcWriteOptions(compression=compression)
    make = pa.ipc.new_stream if stream else pa.ipc.new_file
    with pa.OSFile(str(path), "wb") as sink, make(sink, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=rows)
    return path


@pytest.mark.parametrize(("compression", "stream"), [(None, False), ("zstd", True), ("lz4", False)])
def test_the_rows_of_shards_of_several_batches_are_read_in_order(tmp_path, stream, compression):
    """Pieces are cut by the audio of record batches: four for each actor, by two estimated seconds a row."""
    sizes = ((1, 1), (25, 10), (400, 5))
    for number, (num_rows, rows) in enumerate(sizes):
        table = rows_table(num_rows, audio=bytes(32_000), prefix=f"{number}-")
        write(tmp_path / f"{number}.arrow", table, stream=stream, rows=rows, compression=compression)
    [shard] = raysp.plan(a_pipeline(f"{tmp_path}/2.arrow", tmp_path / "out")).corpus.shards
    pieces = [(piece.first, piece.end) for piece in shard.pieces]
    assert pieces == [(0, 95), (95, 190), (190, 285), (285, 400)] or compression  # by the bytes that are stored
    found = corpora.read(tmp_path, "language")
    expected = [(number, row) for number, (num_rows, _) in enumerate(sizes) for row in range(num_rows)]
    assert [(row["id"], row["row"], row["language"]) for row in found] == [
        (f"{number}-{row}", row, "en" if row % 2 else "de") for number, row in expected
    ]


def with_other_offsets(data: bytes) -> bytes:
    """Return a shard of which the ids of the first record batch point behind their end."""
    offsets = struct.pack("<4i", 0, 4, 8, 12)
    assert data.count(offsets) == 1
    return data.replace(offsets, struct.pack("<4i", 0, 4, 2_000_000_000, 12))


DAMAGES = [
    lambda data: b"",
    lambda data: data[: len(data) // 2],
    lambda data: data[:-30],
    lambda data: b"PAR1" + data[4:],
    lambda data: b"\0" * len(data),
    lambda data: data[:8] + b"\xff\xff\xff\x7f" + data[12:],
    lambda data: b"<html>404</html>" * 9,
    with_other_offsets,
]


def test_shards_that_are_damaged_or_changed_since_they_were_planned_are_refused_by_name(tmp_path):
    write_shard(tmp_path / "good.parquet", 1)
    files = [
        (
            write(tmp_path / f"{number}-{stream}.arrow", rows_table(3, audio=b"bytes", prefix="ids"), stream=stream),
            change,
        )
        for number, change in enumerate([*DAMAGES, None])
        for stream in (False, True)
    ]

    def spoil() -> None:
        for file, change in files:
            if change is None:
                write(file, rows_table(4), stream="True" in file.name)
            else:
                file.write_bytes(change(file.read_bytes()))

    found = corpora.failures(tmp_path, spoil)
    assert {*found} == {f"{file.stem}.parquet" for file, _ in files}
    for file, change in files:
        reason = found[f"{file.stem}.parquet"]
        assert reason.startswith(f"{file}: ")
        assert ("changed since it was planned" in reason) or change is not None


def written(stream: bool, table: pa.Table, **options: object) -> bytes:
    sink = pa.BufferOutputStream()
    make = pa.ipc.new_stream if stream else pa.ipc.new_file
    with make(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


@pytest.mark.parametrize("stream", [False, True])
def test_joined_files_are_refused_and_ends_of_every_writer_and_zeros_are_no_data(tmp_path, stream):
    for padding in (b"", b"\0" * 100):
        (tmp_path / "a.arrow").write_bytes(written(stream, rows_table(3)) + padding + written(stream, rows_table(2)))
        assert re.search(
            r"its messages end at byte .*, and [\d,]+ bytes follow; expected one .*\(are several joined\?\)",
            corpora.refusal(tmp_path / "a.arrow"),
        )
    (tmp_path / "a.arrow").unlink()
    version_4 = {"metadata_version": pa.ipc.MetadataVersion.V4}
    for number, options in enumerate(({}, {"use_legacy_format": True}, version_4, {"compression": "zstd"})):
        data = written(stream, rows_table(3), **options)
        (tmp_path / f"{number}.arrow").write_bytes(data + (b"\0" * 100 if stream and number else b""))
    assert [row["id"] for row in corpora.read(tmp_path)] == ["u0", "u1", "u2"] * 4
