"""Types that differ over the shards of a source: label shards have one type a column, or the plan refuses."""

import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

import raysp
from raysp import PlanError
from tests.corpora import a_pipeline, rewrite, rows_table, wav, write_shard

pytestmark = pytest.mark.lengthy


def shard(folder: Path, name: str, ids: "pa.Array", *, column: str = "id", suffix: str = "parquet") -> None:
    """Write a shard of recordings with a column."""
    table = rows_table(len(ids), prefix=name)
    place = table.column_names.index(column) if column in table.column_names else table.num_columns
    table = table.set_column(place, column, ids) if place < table.num_columns else table.append_column(column, ids)
    path = folder / "in" / f"{name}.{suffix}"
    if suffix == "parquet":
        write_shard(path, table=table)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with pa.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table)


def pipeline_of(folder: Path, keep: list[str] | None = None, **fields: object) -> raysp.Pipeline:
    return a_pipeline(str(folder / "in"), raysp.Parquet(str(folder / "out"), keep=keep or []), **fields)


def read_all(folder: Path) -> pa.Table:
    return pyarrow.dataset.dataset(str(folder / "out"), format="parquet").to_table()


@pytest.mark.parametrize(("column", "suffix"), [("id", "parquet"), ("speaker", "arrow")])
def test_types_that_no_type_holds_are_refused_with_both_shards(tmp_path, column, suffix):
    shard(tmp_path, "a", pa.array([1, 2]), column=column, suffix=suffix)
    shard(tmp_path, "b", pa.array(["x", "y"]), column=column, suffix=suffix)
    with pytest.raises(PlanError, match=rf"b\.{suffix}: column '{column}' is string, in .*a\.{suffix} it is int64"):
        raysp.plan(pipeline_of(tmp_path, [column] if column != "id" else []))


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (pa.array([1, 2], pa.int32()), pa.array([2**40, None]), pa.int64()),
        (pa.nulls(2), pa.array(["x", "y"]), pa.string()),
        (pa.array(["x", "y"]), pa.array(["x", None], pa.large_string()), pa.large_string()),
        (pa.array(["x", "y"]).dictionary_encode(), pa.array(["x", "z"]), pa.string()),
        (pa.array([[1], []], pa.list_(pa.int8())), pa.array([[300], None]), pa.list_(pa.int64())),
    ],
    ids=str,
)
def test_types_are_widened_and_every_reader_reads_the_sink(tmp_path, first, second, expected):
    column = "id" if expected == pa.int64() else "kept"
    shard(tmp_path, "a", first, column=column)
    shard(tmp_path, "b", second, column=column)
    pipeline = pipeline_of(tmp_path, [column] if column != "id" else [])
    plan = raysp.plan(pipeline)
    shown = str(expected).replace("<item", "<element")  # as Parquet names the items of lists
    assert any(note.startswith(f"column {column!r} is ") and f"hold {shown}" in note for note in plan.notes)
    raysp.run(pipeline, engine="here", progress=False)
    types = [pq.read_schema(tmp_path / "out" / f"{name}.parquet").field(column).type for name in "ab"]
    assert types == [expected, expected]
    assert read_all(tmp_path).column(column).to_pylist() == [*first.to_pylist(), *second.to_pylist()]
    assert raysp.verify(str(tmp_path / "out"), pipeline=pipeline).differences == ()


def test_a_nullable_field_metadata_and_a_shard_without_rows_make_no_difference(tmp_path):
    strict = pa.schema([pa.field("id", pa.int64(), nullable=False, metadata={"x": "y"})], metadata={"run": "1"})
    for name, nullable in (("a", False), ("b", True)):
        table = rows_table(1).set_column(0, pa.field("id", pa.int64(), nullable=nullable), pa.array([1]))
        write_shard(tmp_path / "in" / f"{name}.parquet", table=table.replace_schema_metadata({"run": name}))
    write_shard(tmp_path / "in" / "c.parquet", table=rows_table(0))
    pipeline = pipeline_of(tmp_path)
    assert raysp.plan(pipeline).corpus.carried == pa.schema([("id", pa.int64())]) != strict
    raysp.run(pipeline, engine="here", progress=False)
    assert read_all(tmp_path).column("id").to_pylist() == [1, 1]
    assert raysp.verify(str(tmp_path / "out"), pipeline=pipeline).differences == ()


class TestLaterShards:
    """Shards that are added after label shards were written."""

    def test_a_narrower_type_is_stored_as_the_sink_has_it(self, tmp_path):
        shard(tmp_path, "a", pa.array([1, 2]))
        raysp.run(pipeline_of(tmp_path), engine="here", progress=False)
        shard(tmp_path, "b", pa.array([3, 4], pa.int16()))
        raysp.run(pipeline_of(tmp_path), engine="here", progress=False)
        assert read_all(tmp_path).column("id").to_pylist() == [1, 2, 3, 4]

    @pytest.mark.parametrize("column", ["id", "speaker"])
    def test_a_column_without_values_is_stored_as_strings_so_that_later_ones_fit(self, tmp_path, column):
        pipeline = pipeline_of(tmp_path, [column] if column != "id" else [])
        shard(tmp_path, "a", pa.nulls(2), column=column)
        raysp.run(pipeline, engine="here", progress=False)
        shard(tmp_path, "b", pa.nulls(1), column=column)
        shard(tmp_path, "c", pa.array(["x"]), column=column)
        raysp.run(pipeline, engine="here", progress=False)
        assert read_all(tmp_path).column(column).to_pylist() == [None, None, None, "x"]
        assert raysp.verify(str(tmp_path / "out"), pipeline=pipeline).differences == ()
        shard(tmp_path, "d", pa.array([1]), column=column)
        with pytest.raises(PlanError, match=r"d\.parquet: column .* is int64; the label shards of .*out hold string.*"):
            raysp.plan(pipeline)

    @pytest.mark.parametrize("forgets", [False, True], ids=["recorded", "as in a merged sink"])
    def test_a_wider_type_is_refused_with_the_sink(self, tmp_path, forgets):
        shard(tmp_path, "a", pa.array([1, 2], pa.int32()))
        raysp.run(pipeline_of(tmp_path), engine="here", progress=False)
        if forgets:
            path = tmp_path / "out" / ".raysp" / "run.json"
            record = json.loads(path.read_text())
            del record["columns"]
            path.write_text(json.dumps(record))
        shard(tmp_path, "b", pa.array([3, 4]))
        with pytest.raises(PlanError, match=r"b\.parquet: column 'id' is int64; the label shards of .*out hold int32"):
            raysp.plan(pipeline_of(tmp_path))

    def test_a_sink_whose_label_shards_differ_is_found_by_verify(self, tmp_path):
        for name in ("a", "b"):
            shard(tmp_path, name, pa.array([1, 2]))
        pipeline = pipeline_of(tmp_path)
        raysp.run(pipeline, engine="here", progress=False)
        narrow = pa.int32()
        rewrite(tmp_path / "out" / "b.parquet", lambda one: one.set_column(0, "id", one.column("id").cast(narrow)))
        found = raysp.verify(str(tmp_path / "out"), pipeline=pipeline).differences
        assert any("b.parquet: column id is int32, in a.parquet it is int64" in one for one in found)


def tars(folder: Path, values: list[list[object]]) -> None:
    for number, rows in enumerate(values):
        if (folder / "in" / f"{number}.tar").exists():
            continue
        with tarfile.open(folder / "in" / f"{number}.tar", "w") as tar:
            for row, value in enumerate(rows):
                for name, data in ((f"{row}.wav", wav()), (f"{row}.json", json.dumps({"n": value}).encode())):
                    path = folder / name
                    path.write_bytes(data)
                    tar.add(path, name)


def manifests(folder: Path, values: list[list[object]]) -> None:
    (folder / "in" / "a.wav").write_bytes(wav())
    for number, rows in enumerate(values):
        lines = [json.dumps({"audio_filepath": "a.wav", "n": value}) + "\n" for value in rows]
        (folder / "in" / f"{number}.jsonl").write_text("".join(lines))


@pytest.mark.parametrize("write", [tars, manifests])
@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([[1, 2], ["x", None]], ["1", "2", "x", None]),
        ([[1, 2], [0.5, None]], [1.0, 2.0, 0.5, None]),
        ([[True], [{"a": 1}]], ["true", '{"a": 1}']),
    ],
)
def test_values_of_json_that_differ_over_shards_are_stored_as_within_one(
    tmp_path, write: Callable[[Path, list[list[object]]], None], values, expected
):
    (tmp_path / "in").mkdir()
    write(tmp_path, values)
    source = [str(path) for path in sorted((tmp_path / "in").glob("*.[jt]*"))]
    pipeline = a_pipeline(raysp.Shards(source), raysp.Parquet(str(tmp_path / "out"), keep=["n"]))
    raysp.run(pipeline, engine="here", progress=False)
    assert read_all(tmp_path).column("n").to_pylist() == expected
    assert raysp.verify(str(tmp_path / "out"), pipeline=pipeline).differences == ()


def label_shards_beside(folder: Path, *ids: "pa.Array[Any]") -> raysp.Pipeline:
    """Write shards, and label shards for them with a column `mark` that may differ in type."""
    for name, marks in zip("ab", ids, strict=True):
        shard(folder, name, pa.array([f"{name}{row}" for row in range(len(marks))]))
    raysp.run(a_pipeline(str(folder / "in"), folder / "labels"), engine="here", progress=False)
    for name, marks in zip("ab", ids, strict=True):
        rewrite(folder / "labels" / f"{name}.parquet", lambda table, marks=marks: table.append_column("mark", marks))
    source = raysp.Shards(str(folder / "in"), labels=str(folder / "labels"))
    return a_pipeline(source, raysp.Parquet(str(folder / "out"), keep=["mark"]))


class TestLabelsBeside:
    """Columns of label shards that stand beside the shards: a sink of raysp has one type a column."""

    def test_a_shard_whose_values_do_not_fit_fails_by_name_and_the_others_are_committed(self, tmp_path):
        second = pa.array([2**40])
        labelled = label_shards_beside(tmp_path, pa.array([1, 2], pa.int32()), second)
        ran = raysp.run(labelled, engine="here", progress=False)
        assert (ran.exit_code, [*ran.shards_failed]) == (3, ["b.parquet"])
        assert (
            f"column 'mark' is {second.type}, and the label shards of the sink hold int32"
            in ran.shards_failed["b.parquet"]
        )
        assert read_all(tmp_path).column("mark").to_pylist() == [1, 2]
