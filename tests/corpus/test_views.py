"""Views and runs in Arrow columns are replaced by types that every kernel takes, value for value and within bounds."""

import uuid
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import raysp
from raysp import PlanError, plan
from tests import corpora
from tests.corpora import a_pipeline, rows_table

KEPT = {
    "list views": pa.array([["ana", "bo"], None, ["c" * 40]], pa.list_view(pa.string())),
    "runs": pa.RunEndEncodedArray.from_arrays(pa.array([2, 3], pa.int32()), pa.array(["ana", None])),
    "lists of size 0": pa.array([[], None, []], pa.list_(pa.string())).cast(pa.list_(pa.string(), 0)),
    "uuids": pa.array([uuid.UUID(int=1), None, uuid.UUID(int=3)], pa.uuid()),
    "bytes of truth": pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1, None, 0], pa.int8())),
    "texts": pa.array(["six", None, "a text that is longer than a view"], pa.string_view()),
    "views in structs": pa.array(
        [{"a": ["x", None]}, None, {"a": []}], pa.struct([("a", pa.list_view(pa.string_view()))])
    ),
    "views in lists": pa.array([[[1, 2], None], None, []], pa.list_(pa.list_view(pa.int32()))),
    "views in maps": pa.array([[("k", [1])], None, []], pa.map_(pa.string(), pa.list_view(pa.int32()))),
    "views in lists of size 2": pa.array([["x", "y"], None, [None, "z"]], pa.list_(pa.string_view(), 2)),
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
