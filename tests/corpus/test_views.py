"""Views and runs in Arrow columns are replaced by types that every kernel takes, value for value and within bounds."""

import uuid
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import raysp
from raysp import PlanError, plan
from raysp.corpus.pages import BATCH_BYTES
from raysp.corpus.views import parts_of, table_without_views, without_views
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
]


def values(kind: pa.DataType) -> st.SearchStrategy[object]:
    """Return values of a type, null among them."""
    if pa.types.is_struct(kind):
        return st.none() | st.fixed_dictionaries({field.name: values(field.type) for field in kind})
    if isinstance(kind, pa.MapType):
        return st.none() | st.lists(st.tuples(st.sampled_from(["k", "l"]), values(kind.item_type)), max_size=2)
    if pa.types.is_fixed_size_list(kind):
        return st.none() | st.lists(values(kind.value_type), min_size=kind.list_size, max_size=kind.list_size)
    if isinstance(kind, pa.RunEndEncodedType):
        return st.none() | st.sampled_from(["a", "b"])
    if kind == NUMBER:
        return st.none() | st.integers(0, 9)
    if kind == TEXT:
        return st.none() | st.sampled_from(["", "six", "a text that is longer than a view"])
    if kind == pa.binary_view():
        return st.none() | st.sampled_from([b"", b"six", b"bytes that are longer than a view"])
    return st.none() | st.lists(values(kind.value_type), max_size=3)


def array_of(rows: list[object], kind: pa.DataType) -> pa.Array:
    if isinstance(kind, pa.RunEndEncodedType):
        ends = pa.array(range(1, len(rows) + 1), kind.run_end_type)
        return pa.RunEndEncodedArray.from_arrays(ends, pa.array(rows, kind.value_type))
    return pa.array(rows, kind)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_no_value_changes_without_views(kind):
    @given(st.lists(values(kind), max_size=8), st.integers(0, 3))
    def check(rows, first):
        array = array_of(rows, kind)
        table = pa.table({"c": pa.chunked_array([array.slice(first), array])})
        found = table_without_views(table)
        found.validate(full=True)
        assert found.schema.field("c").type == without_views(kind)
        assert found.column("c").to_pylist() == [*rows[first:], *rows]

    check()


KEPT = {
    "list views": pa.array([["ana", "bo"], None, ["c" * 40]], pa.list_view(pa.string())),
    "runs": pa.RunEndEncodedArray.from_arrays(pa.array([2, 3], pa.int32()), pa.array(["ana", None])),
    "lists of size 0": pa.array([[], None, []], pa.list_(pa.string())).cast(pa.list_(pa.string(), 0)),
    "uuids": pa.array([uuid.UUID(int=1), None, uuid.UUID(int=3)], pa.uuid()),
    "bytes of truth": pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1, None, 0], pa.int8())),
    "tensors": pa.FixedShapeTensorArray.from_numpy_ndarray(np.arange(12, dtype=np.float32).reshape(3, 2, 2)),
}


OF_FORMATS = [("arrow", name) for name in KEPT] + [
    ("parquet", name) for name in KEPT if name not in ("runs", "lists of size 0")
]
"""Formats with the columns that they hold."""


@pytest.mark.parametrize(("format", "name"), OF_FORMATS)
def test_a_kept_column_of_any_type_has_its_values_in_the_label_shard(tmp_path, format, name):
    column = KEPT[name]
    write_arrow(tmp_path, column)
    if format == "parquet":
        pq.write_table(pa.ipc.open_file(tmp_path / "in/a.arrow").read_all(), tmp_path / "in/a.parquet")
        (tmp_path / "in/a.arrow").unlink()
    raysp.run(
        a_pipeline(f"{tmp_path}/in", raysp.Parquet(str(tmp_path / "out"), keep=["kept"])), engine="here", progress=False
    )
    values = column.storage.to_pylist() if name == "tensors" else column.to_pylist()
    assert pq.read_table(tmp_path / "out/a.parquet").column("kept").to_pylist() == values
    assert not raysp.verify(str(tmp_path / "out")).differences


LISTS_OF_RUNS = pa.list_(pa.struct([("a", pa.run_end_encoded(pa.int32(), pa.string()))]))


@pytest.mark.parametrize(
    "kind",
    [pa.month_day_nano_interval(), pa.dense_union([pa.field("a", pa.int8())]), pa.list_(pa.struct([])), LISTS_OF_RUNS],
    ids=str,
)
@pytest.mark.parametrize("place", ["keep", "id"])
def test_a_type_that_parquet_does_not_hold_is_refused_by_the_plan(tmp_path, kind, place):
    write_arrow(tmp_path, pa.nulls(3, kind))
    source = raysp.Shards(f"{tmp_path}/in", id="kept" if place == "id" else "id")
    sink = raysp.Parquet(str(tmp_path / "out"), keep=["kept"] if place == "keep" else [])
    with pytest.raises(
        PlanError, match=r"a\.arrow: column 'kept' is .*, which no Parquet file holds; expected another"
    ):
        plan(a_pipeline(source, sink))


def write_arrow(folder: Path, column: pa.Array) -> None:
    (folder / "in").mkdir()
    table = rows_table(3).append_column("kept", column)
    with pa.ipc.new_file(folder / "in" / "a.arrow", table.schema) as writer:
        writer.write_table(table)


def test_lists_that_share_their_values_are_split_into_rows_within_bounds():
    shared = pa.array(np.zeros(8_000_000, np.uint8))
    lists = pa.ListViewArray.from_arrays(
        pa.array([0] * 200, pa.int32()), pa.array([8_000_000] * 200, pa.int32()), shared
    )
    batch = pa.record_batch({"lists": lists, "in structs": pa.StructArray.from_arrays([lists], ["a"])})
    parts = [part.num_rows for part in parts_of(batch)]
    assert sum(parts) == 200
    assert max(parts) * shared.nbytes <= BATCH_BYTES
