"""Arrow IPC shards: both formats, in pieces, from strangers."""

import contextlib
import itertools
import struct
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysp import ShardError
from raysp.corpus import arrow, sources
from raysp.corpus.shards import Piece, Shard, input_id
from tests.corpora import rows_table


def write(path, table, *, stream=False, rows=10, compression=None):
    options = pa.ipc.IpcWriteOptions(compression=compression)
    make = pa.ipc.new_stream if stream else pa.ipc.new_file
    with pa.OSFile(str(path), "wb") as sink, make(sink, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=rows)
    return path


def written(new: Callable[..., Any], table: pa.Table, **options: object) -> bytes:
    sink = pa.BufferOutputStream()
    with new(sink, table.schema, **options) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def shard_of(path) -> Shard:
    found = sources.survey("arrow", str(path), "")
    num_bytes = path.stat().st_size
    digest = input_id(num_bytes, "1", found)
    return Shard("x.parquet", str(path), num_bytes, "1", found.num_rows, digest, found.pieces, kind="arrow")


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(
    num_rows=st.integers(1, 60),
    rows=st.integers(1, 60),
    edges=st.lists(st.integers(0, 60), max_size=4),
    stream=st.booleans(),
    compression=st.sampled_from([None, "zstd", "lz4"]),
)
def test_the_pieces_of_a_shard_give_its_rows_in_order(tmp_path_factory, num_rows, rows, edges, stream, compression):
    table = rows_table(num_rows, audio=b"some bytes")
    path = tmp_path_factory.getbasetemp() / "x.arrow"
    shard = shard_of(write(path, table, stream=stream, rows=rows, compression=compression))
    assert shard.num_rows == num_rows
    cuts = sorted({0, num_rows, *(min(edge, num_rows) for edge in edges)})
    found = [sources.read_table(shard, Piece(a, b), ["language", "id"]) for a, b in itertools.pairwise(cuts)]
    assert pa.concat_tables(found).combine_chunks() == table.select(["language", "id"]).combine_chunks()


@pytest.mark.parametrize("stream", [False, True])
def test_pieces_are_cut_by_the_bytes_of_record_batches(tmp_path, stream, monkeypatch):
    sizes = []
    monkeypatch.setattr("raysp.corpus.arrow.cut_groups", lambda groups: sizes.extend(groups) or ())
    sources.survey("arrow", str(write(tmp_path / "x.arrow", rows_table(25, audio=bytes(1000)), stream=stream)), "")
    assert [rows for _, rows in sizes] == [10, 10, 5]
    assert all(1000 * rows < num_bytes < 1500 * rows for num_bytes, rows in sizes)


@pytest.mark.parametrize("stream", [False, True])
def test_columns_of_any_type_are_read(tmp_path, stream):
    table = pa.table(
        {
            "dictionary": pa.array(["a", None, "b"]).dictionary_encode(),
            "large": pa.array(["x", None, "z"], pa.large_string()),
            "view": pa.array([b"x", None, b"z"], pa.binary_view()),
            "null": pa.nulls(3),
            "list": pa.array([[1], None, []]),
        }
    )
    shard = shard_of(write(tmp_path / "x.arrow", table, stream=stream, rows=2))
    found = sources.read_table(shard, Piece(1, 3), table.column_names)
    assert found.to_pylist() == table.slice(1).to_pylist()
    assert found.schema == sources.survey("arrow", shard.url, "").schema


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("name", ["ray.data.arrow_tensor", "ray.data.arrow_pickled_object"])
def test_an_extension_type_of_ray_is_refused_before_the_schema_is_made(tmp_path, stream, nested, name, monkeypatch):
    field = pa.field(
        "evil", pa.binary(), metadata={"ARROW:extension:name": name, "ARROW:extension:metadata": "payload"}
    )
    kind = pa.struct([field]) if nested else field.type
    column = pa.array([{"evil": b"x"}] if nested else [b"x"], kind)
    table = pa.table([column], schema=pa.schema([pa.field("outer", kind) if nested else field]))
    path = write(tmp_path / "x.arrow", table, stream=stream)
    for opening in ("open_file", "open_stream"):
        monkeypatch.setattr(pa.ipc, opening, lambda *_: pytest.fail("the schema was made"))
    with pytest.raises(ShardError, match=r"x.arrow: its schema holds an extension type of Ray, which would run code"):
        sources.survey("arrow", str(path), "")


@pytest.mark.parametrize("stream", [False, True])
def test_without_the_guard_a_registered_type_would_run_its_code(tmp_path, stream, monkeypatch):
    ran = []

    class Evil(pa.ExtensionType):
        def __init__(self):
            super().__init__(pa.binary(), "ray.data.evil")

        def __arrow_ext_serialize__(self):
            return b"payload"

        @classmethod
        def __arrow_ext_deserialize__(cls, storage_type, serialized):
            ran.append(serialized)
            return cls()

    storage = pa.array([b"x"], pa.binary())
    path = write(
        tmp_path / "x.arrow", pa.table({"evil": pa.ExtensionArray.from_storage(Evil(), storage)}), stream=stream
    )
    pa.register_extension_type(Evil())
    try:
        with pytest.raises(ShardError, match="extension type of Ray"):
            sources.survey("arrow", str(path), "")
        assert ran == []
        monkeypatch.setattr(arrow, "refuse_ray_types", lambda url, raw: None)
        sources.survey("arrow", str(path), "")
        assert ran
    finally:
        pa.unregister_extension_type("ray.data.evil")


@pytest.mark.parametrize("stream", [False, True])
def test_another_extension_type_is_read_as_its_storage(tmp_path, stream):
    values = pa.ExtensionArray.from_storage(
        pa.opaque(pa.binary(16), "own", "raysp"), pa.array([b"0123456789abcdef"], pa.binary(16))
    )
    shard = shard_of(write(tmp_path / "x.arrow", pa.table({"id": values}), stream=stream))
    assert sources.read_table(shard, Piece(0, 1), ["id"]).column("id").to_pylist() == [b"0123456789abcdef"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: b"",
        lambda data: data[: len(data) // 2],
        lambda data: data[:-30],
        lambda data: b"PAR1" + data[4:],
        lambda data: b"\0" * len(data),
        lambda data: data[:8] + b"\xff\xff\xff\x7f" + data[12:],
        lambda data: b"<html>404</html>" * 9,
    ],
)
def test_a_damaged_shard_is_refused_by_name_or_read(tmp_path, stream, spoil):
    path = write(tmp_path / "x.arrow", rows_table(25, audio=b"bytes"), stream=stream)
    shard = shard_of(path)
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(ShardError, match=r"^/.*x.arrow: "):
        sources.read_table(shard, Piece(0, 25), ["id", "audio"])


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_any_content_of_a_shard_is_read_or_refused_by_name(data, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "fuzzed.arrow"
    write(path, rows_table(5, audio=b"bytes"), stream=data.draw(st.booleans()), rows=2)
    shard = shard_of(path)
    raw = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(raw)
    refused = "fuzzed.arrow"
    try:
        found = sources.read_table(shard, Piece(0, 5), ["id", "audio", "text"])
    except ShardError as error:
        refused = str(error)
    else:
        with contextlib.suppress(UnicodeDecodeError):  # texts are the source's own affair
            found.to_pylist()
    assert "fuzzed.arrow" in refused
    assert "\n" not in refused


def test_offsets_that_point_elsewhere_are_refused(tmp_path):
    path = write(tmp_path / "x.arrow", pa.table({"id": pa.array(["aa", "bb", "cc"])}))
    shard = shard_of(path)
    raw = path.read_bytes()
    offsets = struct.pack("<4i", 0, 2, 4, 6)
    assert raw.count(offsets) == 1
    path.write_bytes(raw.replace(offsets, struct.pack("<4i", 0, 2, 2_000_000_000, 6)))
    with pytest.raises(ShardError, match=r"x.arrow: "):
        sources.read_table(shard, Piece(0, 3), ["id"])


def test_a_shard_that_changed_since_it_was_planned_is_refused(tmp_path):
    shard = shard_of(write(tmp_path / "x.arrow", rows_table(5)))
    write(tmp_path / "x.arrow", rows_table(6))
    with pytest.raises(ShardError, match=r"x.arrow: changed since it was planned"):
        sources.read_table(shard, Piece(0, 5), ["id"])


@pytest.mark.parametrize("padding", [b"", b"\0" * 100], ids=["joined", "padded and joined"])
@pytest.mark.parametrize("new", [pa.ipc.new_file, pa.ipc.new_stream], ids=["file", "stream"])
def test_files_and_streams_that_are_joined_are_refused_and_not_read_in_part(tmp_path, new, padding):
    data = written(new, rows_table(3))
    (tmp_path / "a.arrow").write_bytes(data + padding + written(new, rows_table(2)))
    with pytest.raises(
        ShardError,
        match=r"its messages end at byte .*, and [\d,]+ bytes follow; expected one .*\(are several joined\?\)",
    ):
        sources.survey("arrow", f"{tmp_path}/a.arrow", "")


@pytest.mark.parametrize("new", [pa.ipc.new_file, pa.ipc.new_stream], ids=["file", "stream"])
@pytest.mark.parametrize(
    "options",
    [
        pa.ipc.IpcWriteOptions(),
        pa.ipc.IpcWriteOptions(use_legacy_format=True),
        pa.ipc.IpcWriteOptions(metadata_version=pa.ipc.MetadataVersion.V4),
        pa.ipc.IpcWriteOptions(compression="zstd"),
    ],
    ids=["default", "legacy", "version 4", "compressed"],
)
def test_ends_of_every_writer_and_zeros_behind_a_stream_are_no_data(tmp_path, new, options):
    data = written(new, rows_table(3), options=options)
    (tmp_path / "a.arrow").write_bytes(data)
    (tmp_path / "b.arrow").write_bytes(data + (b"\0" * 100 if new is pa.ipc.new_stream else b""))
    assert [sources.survey("arrow", f"{tmp_path}/{one}.arrow", "").num_rows for one in "ab"] == [3, 3]
