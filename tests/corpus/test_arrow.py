"""Arrow IPC shards: both formats, in pieces, from strangers."""

import re
import struct
from collections.abc import Callable
from random import Random
from typing import Any

import pyarrow as pa
import pytest

import raysp
from tests import corpora
from tests.corpora import AUDIO, a_pipeline, rows_table, wav, write_shard


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


FORMS = [
    (num_rows, rows, stream, compression)
    for num_rows, rows in ((1, 1), (25, 10), (60, 7), (60, 60))
    for stream in (False, True)
    for compression in (None, "zstd", "lz4")
]


def test_the_rows_of_a_shard_are_read_in_order(tmp_path):
    for number, (num_rows, rows, stream, compression) in enumerate(FORMS):
        table = rows_table(num_rows, audio=wav(160), prefix=f"{number}-")
        write(tmp_path / f"{number:02}.arrow", table, stream=stream, rows=rows, compression=compression)
    found = corpora.read(tmp_path, "language")
    expected = [(number, row) for number, (num_rows, *_) in enumerate(FORMS) for row in range(num_rows)]
    assert [(row["id"], row["row"], row["language"]) for row in found] == [
        (f"{number}-{row}", row, "en" if row % 2 else "de") for number, row in expected
    ]


@pytest.mark.slow
@pytest.mark.parametrize("stream", [False, True])
def test_the_pieces_of_a_shard_give_its_rows_in_order(tmp_path, stream):
    audio = pa.array([{"bytes": None, "path": None}] * 10_499 + [{"bytes": wav(160), "path": None}], AUDIO)
    table = pa.table({"id": [f"{row}" for row in range(10_500)], "audio": audio})
    path = write(tmp_path / "x.arrow", table, stream=stream, rows=300)
    assert pieces_of(path) == [(0, 9900), (9900, 10_500)]
    assert [row["id"] for row in corpora.read(path)] == table.column("id").to_pylist()


def pieces_of(path) -> list[tuple[int, int]]:
    [shard] = raysp.plan(a_pipeline(str(path), path.parent / "out")).corpus.shards
    return [(piece.first, piece.end) for piece in shard.pieces]


@pytest.mark.slow
@pytest.mark.parametrize("stream", [False, True])
def test_pieces_are_cut_by_the_audio_of_record_batches(tmp_path, stream):
    """Four for each actor, by estimated seconds: two seconds a row, ten a batch."""
    path = write(tmp_path / "x.arrow", rows_table(400, audio=bytes(32_000)), stream=stream, rows=5)
    assert pieces_of(path) == [(0, 95), (95, 190), (190, 285), (285, 400)]


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
    names = table.column_names
    for name in ("id", "audio"):
        table = table.append_column(name, rows_table(3).column(name))
    write(tmp_path / "x.arrow", table, stream=stream, rows=2)
    found = corpora.read(tmp_path, *names)
    assert [{name: row[name] for name in names} for row in found] == table.select(names).to_pylist()


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
    message = f"{path}: its schema holds an extension type of Ray, which would run code"
    assert corpora.refusal(path).startswith(message)


@pytest.mark.parametrize("stream", [False, True])
def test_code_of_a_registered_type_is_not_run(tmp_path, stream):
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
        assert "extension type of Ray" in corpora.refusal(path)
        assert ran == []
        (pa.ipc.open_stream if stream else pa.ipc.open_file)(path)
        assert ran
    finally:
        pa.unregister_extension_type("ray.data.evil")


@pytest.mark.parametrize("stream", [False, True])
def test_another_extension_type_is_read_as_its_storage(tmp_path, stream):
    values = pa.ExtensionArray.from_storage(
        pa.opaque(pa.binary(16), "own", "raysp"), pa.array([b"0123456789abcdef"], pa.binary(16))
    )
    write(tmp_path / "x.arrow", rows_table(1).append_column("own", values), stream=stream)
    assert [row["own"] for row in corpora.read(tmp_path, "own")] == [b"0123456789abcdef"]


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


@pytest.mark.slow
def test_any_content_of_a_shard_is_read_or_refused_by_name(tmp_path):
    write_shard(tmp_path / "good.parquet", 1)
    random = Random(0)
    files = [
        write(tmp_path / f"{number}.arrow", rows_table(5, audio=b"bytes"), stream=number % 2 == 0, rows=2)
        for number in range(200)
    ]

    def spoil() -> None:
        for file in files:
            raw = bytearray(file.read_bytes())
            for _ in range(random.randint(1, 4)):
                raw[random.randrange(len(raw))] = random.randrange(256)
            file.write_bytes(raw)

    found = corpora.failures(tmp_path, spoil, "text")
    assert 20 < len(found) < 200
    for name, reason in found.items():
        assert name.replace(".parquet", ".arrow") in reason
        assert "\n" not in reason


@pytest.mark.parametrize("padding", [b"", b"\0" * 100], ids=["joined", "padded and joined"])
@pytest.mark.parametrize("new", [pa.ipc.new_file, pa.ipc.new_stream], ids=["file", "stream"])
def test_files_and_streams_that_are_joined_are_refused_and_not_read_in_part(tmp_path, new, padding):
    data = written(new, rows_table(3))
    (tmp_path / "a.arrow").write_bytes(data + padding + written(new, rows_table(2)))
    assert re.search(
        r"its messages end at byte .*, and [\d,]+ bytes follow; expected one .*\(are several joined\?\)",
        corpora.refusal(tmp_path),
    )


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
    assert [row["id"] for row in corpora.read(tmp_path)] == ["u0", "u1", "u2"] * 2
