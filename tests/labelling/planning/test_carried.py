"""Types that differ over the shards of a source: label shards have one type a column, or the plan refuses."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset
import pytest

import raysp
from raysp import PlanError
from tests.corpora import a_pipeline, rewrite, rows_table, write_shard

pytestmark = pytest.mark.lengthy


def shard(folder: Path, name: str, values: "pa.Array", column: str = "id") -> None:
    """Write a shard of recordings with a column."""
    table = rows_table(len(values), prefix=name)
    has_it = column in table.column_names
    table = table.set_column(0, column, values) if has_it else table.append_column(column, values)
    write_shard(folder / "in" / f"{name}.parquet", table=table)


def pipeline_of(folder: Path, column: str = "id", **source: object) -> raysp.Pipeline:
    keep = [column] if column != "id" else []
    return a_pipeline(raysp.Shards(str(folder / "in"), **source), raysp.Parquet(str(folder / "out"), keep=keep))


def label(pipeline: raysp.Pipeline):
    return raysp.run(pipeline, engine="here", progress=False)


def check(folder: Path, pipeline: raysp.Pipeline, column: str, *expected: object) -> "pa.DataType":
    """Check the values of a column of the sink, and return its type."""
    found = pyarrow.dataset.dataset(str(folder / "out"), format="parquet").to_table().column(column)
    assert found.to_pylist() == [*expected]
    assert raysp.verify(str(folder / "out"), pipeline=pipeline).differences == ()
    return found.type


def test_types_are_widened_with_a_note_and_every_reader_reads_the_sink(tmp_path):
    shard(tmp_path, "a", pa.array([1, 2], pa.int32()))
    shard(tmp_path, "b", pa.array([2**40, None]))
    pipeline = pipeline_of(tmp_path)
    notes = raysp.plan(pipeline).notes
    assert any(note.startswith("column 'id' is ") and "hold int64" in note for note in notes)
    label(pipeline)
    assert check(tmp_path, pipeline, "id", 1, 2, 2**40, None) == pa.int64()


@pytest.mark.parametrize("column", ["id", "kept"])
def test_types_that_no_type_holds_are_refused_with_both_shards(tmp_path, column):
    shard(tmp_path, "a", pa.array([1, 2]), column)
    shard(tmp_path, "b", pa.array(["x", "y"]), column)
    with pytest.raises(PlanError, match=rf"b\.parquet: column '{column}' is string, in .*a\.parquet it is int64"):
        raysp.plan(pipeline_of(tmp_path, column))


@pytest.mark.parametrize("column", ["id", "kept"])
def test_a_column_without_values_is_stored_as_strings_so_that_later_ones_fit(tmp_path, column):
    pipeline = pipeline_of(tmp_path, column)
    shard(tmp_path, "a", pa.nulls(2), column)
    label(pipeline)
    shard(tmp_path, "b", pa.array(["x"]), column)
    label(pipeline)
    assert check(tmp_path, pipeline, column, None, None, "x") == pa.string()


@pytest.mark.parametrize("forgets", [False, True], ids=["recorded", "as in a merged sink"])
def test_a_wider_type_in_a_later_shard_is_refused_with_the_sink(tmp_path, forgets):
    shard(tmp_path, "a", pa.array([1, 2], pa.int32()))
    label(pipeline_of(tmp_path))
    if forgets:
        path = tmp_path / "out" / ".raysp" / "run.json"
        record = json.loads(path.read_text())
        del record["columns"]
        path.write_text(json.dumps(record))
    shard(tmp_path, "b", pa.array([3, 4]))
    with pytest.raises(PlanError, match=r"b\.parquet: column 'id' is int64; the label shards of .*out hold int32"):
        raysp.plan(pipeline_of(tmp_path))


def test_a_column_of_labels_beside_whose_values_do_not_fit_fails_its_shard_by_name(tmp_path):
    for name, marks in (("a", pa.array([1, 2], pa.int32())), ("b", pa.array([2**40]))):
        shard(tmp_path, name, pa.array([f"{name}{row}" for row in range(len(marks))]))
        label(a_pipeline(str(tmp_path / "in"), tmp_path / "labels"))
        rewrite(tmp_path / "labels" / f"{name}.parquet", lambda table, marks=marks: table.append_column("mark", marks))
    ran = label(pipeline := pipeline_of(tmp_path, "mark", labels=str(tmp_path / "labels")))
    assert (ran.exit_code, [*ran.shards_failed]) == (3, ["b.parquet"])
    assert "column 'mark' is int64, and the label shards of the sink hold int32" in ran.shards_failed["b.parquet"]
    assert pyarrow.dataset.dataset(pipeline.sink.url).to_table().column("mark").to_pylist() == [1, 2]
