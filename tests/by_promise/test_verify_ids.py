"""Ids and kept columns of every type are compared with the source, and counted if they occur twice."""

import decimal
import uuid

import numpy as np
import pyarrow as pa
import pytest

import raysp
from tests import kit
from tests.corpora import a_pipeline, rows_table, write_shard

COLUMNS = {
    "list": pa.array([[1], [2, 3], None]),
    "struct": pa.array([{"a": 1}, {"a": 1}, None]),
    "map": pa.array([[("k", 1)], [], None], pa.map_(pa.string(), pa.int32())),
    "fixed size list": pa.array([[1.0, 2.0], None, [3.0, 4.0]], pa.list_(pa.float32(), 2)),
    "dictionary": pa.array(["a", None, "a"]).dictionary_encode(),
    "decimal": pa.array([decimal.Decimal("1.20"), None, decimal.Decimal("-9.99")], pa.decimal128(5, 2)),
    "null": pa.nulls(3),
    "half": pa.array(np.arange(3, dtype="float16")),
    "nan": pa.array([float("nan"), 1.0, None]),
    "time": pa.array([0, 1, None], pa.timestamp("us", "Europe/Berlin")),
}
VIEWS = {
    "string view": pa.array(["a", "b" * 40, None], pa.string_view()),
    "binary view": pa.array([b"a", b"b" * 40, None], pa.binary_view()),
    "list of string views": pa.array([["a"], ["b"], None], pa.list_(pa.string_view())),
    "struct of string views": pa.array([{"a": "x"}, {"a": None}, None], pa.struct([("a", pa.string_view())])),
    "map of string views": pa.array([[("k", "v")], [], None], pa.map_(pa.string(), pa.string_view())),
    "list views": pa.array([["ana", "bo"], None, ["c" * 40]], pa.list_view(pa.string())),
    "views in lists": pa.array([[[1, 2], None], None, []], pa.list_(pa.list_view(pa.int32()))),
    "views in lists of size 2": pa.array([["x", "y"], None, [None, "z"]], pa.list_(pa.string_view(), 2)),
    "runs": pa.RunEndEncodedArray.from_arrays(pa.array([2, 3], pa.int32()), pa.array(["ana", None])),
    "lists of size 0": pa.array([[], None, []], pa.list_(pa.string())).cast(pa.list_(pa.string(), 0)),
    "uuids": pa.array([uuid.UUID(int=1), None, uuid.UUID(int=3)], pa.uuid()),
    "bytes of truth": pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1, None, 0], pa.int8())),
}
"""Types that Parquet does not store."""


@pytest.mark.parametrize(
    ("id_column", "suffix"), [("struct", "parquet"), ("dictionary", "parquet"), ("half", "parquet"), ("list", "arrow")]
)
def test_ids_and_kept_columns_of_every_type_are_verified(tmp_path, id_column, suffix):
    columns = COLUMNS if suffix == "parquet" else {**COLUMNS, **VIEWS}
    table = rows_table(3).set_column(0, "id", columns[id_column])
    for name, column in columns.items():
        table = table.append_column(name, column)
    path = tmp_path / "in" / f"a.{suffix}"
    if suffix == "parquet":
        write_shard(path, table=table)
    else:
        path.parent.mkdir()
        with pa.ipc.new_file(str(path), table.schema) as writer:
            writer.write_table(table)
    sink = raysp.Parquet(str(tmp_path / "out"), keep=[*columns])
    pipeline = a_pipeline(str(tmp_path / "in"), sink)
    raysp.run(pipeline, engine="here", progress=False)
    verified = raysp.verify(sink.url, pipeline=pipeline)
    assert (verified.rows, verified.differences) == (3, ())
    assert verified.duplicate_ids == (id_column in ("struct", "dictionary"))
    labels = kit.rows(sink.url)
    assert repr([[row[name] for row in labels] for name in columns]) == repr(
        [column.to_pylist() for column in columns.values()]
    )
