"""Views and runs in Arrow columns are replaced by types that every kernel takes, value for value and within bounds."""

import uuid
from pathlib import Path
from random import Random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import raysp
from raysp import PlanError, plan
from tests import corpora
from tests.corpora import a_pipeline, rows_table

TEXT, NUMBER = pa.string_view(), pa.int32()
KINDS = [
    TEXT,
    pa.binary_view(),
    pa.list_view(NUMBER),
    pa.large_list_view(TEXT),
    pa.struct([("a", pa.list_view(TEXT)), ("b", NUMBER)]),
    pa.list_(pa.list_view(NUMBER)),
    pa.large_list(pa.struct([("a", TEXT)])),
    pa.list_view(pa.struct([("a", pa.list_view(TEXT))])),
    pa.list_(pa.list_view(NUMBER), 2),
    pa.list_(TEXT, 2),
    pa.list_(NUMBER, 0),
    pa.struct([("a", pa.list_(TEXT, 0))]),
    pa.map_(pa.string(), pa.list_view(NUMBER)),
    pa.run_end_encoded(pa.int32(), pa.string()),
    pa.dictionary(pa.int32(), pa.string()),
    pa.large_string(),
    pa.null(),
]


def value(kind: pa.DataType, random: Random) -> object:
    """Return a value of a type, null among them."""
    if random.random() < 0.2 or pa.types.is_null(kind):
        return None
    if pa.types.is_struct(kind):
        return {field.name: value(field.type, random) for field in kind}
    if isinstance(kind, pa.MapType):
        return [(key, value(kind.item_type, random)) for key in ["k", "l"][: random.randint(0, 2)]]
    if pa.types.is_fixed_size_list(kind):
        return [value(kind.value_type, random) for _ in range(kind.list_size)]
    if isinstance(kind, pa.RunEndEncodedType | pa.DictionaryType) or kind == pa.large_string():
        return random.choice(["a", "b"])
    if kind == NUMBER:
        return random.randint(0, 9)
    if kind == TEXT:
        return random.choice(["", "six", "a text that is longer than a view"])
    if kind == pa.binary_view():
        return random.choice([b"", b"six", b"bytes that are longer than a view"])
    return [value(kind.value_type, random) for _ in range(random.randint(0, 3))]


def array_of(rows: list[object], kind: pa.DataType) -> pa.Array:
    if isinstance(kind, pa.RunEndEncodedType):
        ends = pa.array(range(1, len(rows) + 1), kind.run_end_type)
        return pa.RunEndEncodedArray.from_arrays(ends, pa.array(rows, kind.value_type))
    return pa.array(rows, kind)


@pytest.mark.parametrize("stream", [False, True])
def test_no_value_changes_without_views(tmp_path, stream):
    random, table = Random(0), rows_table(200).select(["id", "audio"])
    rows = {f"c{number}": [value(kind, random) for _ in range(200)] for number, kind in enumerate(KINDS)}
    for name, kind in zip(rows, KINDS, strict=True):
        table = table.append_column(name, array_of(rows[name], kind))
    with (pa.ipc.new_stream if stream else pa.ipc.new_file)(tmp_path / "a.arrow", table.schema) as writer:
        for first, end in ((0, 3), (3, 4), (4, 200)):
            writer.write_table(table.slice(first, end - first))
    found = corpora.read(tmp_path / "a.arrow", *rows)
    for name, kind in zip(rows, KINDS, strict=True):
        assert [row[name] for row in found] == array_of(rows[name], kind).to_pylist(), kind


KEPT = {
    "list views": pa.array([["ana", "bo"], None, ["c" * 40]], pa.list_view(pa.string())),
    "runs": pa.RunEndEncodedArray.from_arrays(pa.array([2, 3], pa.int32()), pa.array(["ana", None])),
    "lists of size 0": pa.array([[], None, []], pa.list_(pa.string())).cast(pa.list_(pa.string(), 0)),
    "uuids": pa.array([uuid.UUID(int=1), None, uuid.UUID(int=3)], pa.uuid()),
    "bytes of truth": pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1, None, 0], pa.int8())),
    "tensors": pa.FixedShapeTensorArray.from_numpy_ndarray(np.arange(12, dtype=np.float32).reshape(3, 2, 2)),
}
NOT_IN_PARQUET = ("runs", "lists of size 0")


@pytest.mark.parametrize("format", ["arrow", "parquet"])
def test_kept_columns_of_any_type_have_their_values_in_the_label_shard(tmp_path, format):
    kept = {name: column for name, column in KEPT.items() if format == "arrow" or name not in NOT_IN_PARQUET}
    write_arrow(tmp_path, **kept)
    if format == "parquet":
        pq.write_table(pa.ipc.open_file(tmp_path / "in/a.arrow").read_all(), tmp_path / "in/a.parquet")
        (tmp_path / "in/a.arrow").unlink()
    raysp.run(corpora.reading(f"{tmp_path}/in", tmp_path / "out", *kept), engine="here", progress=False)
    found = pq.read_table(tmp_path / "out/a.parquet")
    for name, column in kept.items():
        values = column.storage.to_pylist() if name == "tensors" else column.to_pylist()
        assert found.column(name).to_pylist() == values, name
    assert not raysp.verify(str(tmp_path / "out"), trust=True).differences


LISTS_OF_RUNS = pa.list_(pa.struct([("a", pa.run_end_encoded(pa.int32(), pa.string()))]))


@pytest.mark.parametrize(
    "kind",
    [pa.month_day_nano_interval(), pa.dense_union([pa.field("a", pa.int8())]), pa.list_(pa.struct([])), LISTS_OF_RUNS],
    ids=str,
)
def test_a_type_that_parquet_does_not_hold_is_refused_by_the_plan(tmp_path, kind):
    write_arrow(tmp_path, kept=pa.nulls(3, kind))
    for id_, keep in (("kept", []), ("id", ["kept"])):
        message = r"a\.arrow: column 'kept' is .*, which no Parquet file holds; expected another"
        with pytest.raises(PlanError, match=message):
            plan(a_pipeline(raysp.Shards(f"{tmp_path}/in", id=id_), raysp.Parquet(f"{tmp_path}/out", keep=keep)))


def write_arrow(folder: Path, **columns: pa.Array) -> None:
    (folder / "in").mkdir()
    table = rows_table(3)
    for name, column in columns.items():
        table = table.append_column(name, column)
    with pa.ipc.new_file(folder / "in" / "a.arrow", table.schema) as writer:
        writer.write_table(table)
