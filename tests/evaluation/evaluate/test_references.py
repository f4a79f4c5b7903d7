"""Columns that labels are compared with: read with their rows, and refused with what was found."""

import json

import pyarrow as pa
import pytest

import raysp
from raysp import PlanError
from raysp.evaluation.evaluate.references import ComparedColumns, read_references
from tests.corpora import a_pipeline, rows_table, write_shard


def read(folder, wanted, **source):
    source = raysp.Shards(f"{folder}/in/*.parquet", **{"id": None, **source})
    return read_references(source, raysp.plan(a_pipeline(source, folder / "out")).corpus.shards, wanted)


def with_column(values, kind=None, *, metadata=None, name="x"):
    table = rows_table(len(values)).append_column(name, pa.array(values, kind))
    return table.replace_schema_metadata(metadata)


def texts(reference="text", *others):
    return ComparedColumns("recognition", reference, others)


def test_references_ids_and_other_columns_of_each_shard_in_order(tmp_path):
    write_shard(tmp_path / "in" / "a.parquet", 2)
    write_shard(tmp_path / "in" / "b.parquet", 1)
    first, second = read(tmp_path, texts("text", "language"))
    assert (first.shard.name, first.references, first.groups) == (
        "a.parquet",
        ["one two"] * 2,
        {"language": ["de", "en"]},
    )
    assert (first.ids, second.ids) == (["a0", "a1"], ["b0"])


def test_without_a_column_of_ids_rows_have_those_of_label_shards(tmp_path):
    write_shard(tmp_path / "in" / "a.parquet", table=rows_table(2).drop_columns(["id"]))
    [found] = read(tmp_path, texts())
    assert found.ids == ["a:0", "a:1"]


def test_the_source_may_name_another_column_of_ids(tmp_path):
    write_shard(tmp_path / "in" / "a.parquet", 2)
    assert read(tmp_path, texts(), id="language")[0].ids == ["de", "en"]


@pytest.mark.parametrize("kind", [pa.large_string(), pa.binary(), pa.dictionary(pa.int32(), pa.string())])
def test_texts_of_any_type_are_read(tmp_path, kind):
    write_shard(
        tmp_path / "in" / "a.parquet",
        table=with_column(["a", None]).set_column(4, "x", pa.array(["a", None]).cast(kind)),
    )
    assert read(tmp_path, texts("x"))[0].references == ["a", None]


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        (["a", None], pa.string(), ["a", None]),
        ([1, None], pa.int16(), [1, None]),
        ([True, None], pa.bool_(), [True, None]),
        ([0.5, None], pa.float32(), [0.5, None]),
        ([0, None], pa.date32(), ["1970-01-01", None]),
    ],
    ids=lambda value: str(value),
)
def test_other_columns_have_values_as_json_has_them(tmp_path, values, kind, expected):
    write_shard(tmp_path / "in" / "a.parquet", table=with_column(values, kind))
    assert read(tmp_path, texts("text", "x"))[0].groups == {"x": expected}


@pytest.mark.parametrize(
    ("wanted", "complaint"),
    [
        (texts("sentence"), r"a\.parquet: has no column 'sentence', expected one; its columns are id, audio, text"),
        (texts("x"), r"a\.parquet: column 'x' holds int64, expected strings; name the column of the reference texts"),
        (texts("text", "audio"), r"column 'audio' holds struct<.*>, expected single values, by which rows are grouped"),
        (texts("text", "dialect"), "has no column 'dialect'"),
        (
            ComparedColumns("classification", "y"),
            "column 'y' holds double, expected strings or integers; .* of the classes",
        ),
        (
            ComparedColumns("verification", "y"),
            "column 'y' holds double, expected strings or integers; .* of the speakers",
        ),
    ],
)
def test_a_column_that_does_not_fit_is_refused(tmp_path, wanted, complaint):
    table = with_column([1, 2]).append_column("y", pa.array([0.5, 1.5]))
    write_shard(tmp_path / "in" / "a.parquet", table=table)
    with pytest.raises(PlanError, match=complaint):
        read(tmp_path, wanted)


def test_shards_without_rows_are_refused_and_beside_others_have_no_references(tmp_path):
    write_shard(tmp_path / "in" / "a.parquet", table=rows_table(1).slice(1))
    with pytest.raises(PlanError, match="found no rows"):
        read(tmp_path, texts())
    write_shard(tmp_path / "in" / "b.parquet", 1)
    assert [one.references for one in read(tmp_path, texts())] == [(), ["one two"]]


def test_a_column_without_values_is_refused(tmp_path):
    write_shard(tmp_path / "in" / "a.parquet", table=with_column([None, None], pa.string()))
    with pytest.raises(PlanError, match="column 'x' is null in all rows; name the column of the references"):
        read(tmp_path, texts("x"))


def test_classes_are_texts_also_of_integers_and_booleans(tmp_path):
    write_shard(tmp_path / "in" / "a.parquet", table=with_column([3, None]))
    assert read(tmp_path, ComparedColumns("classification", "x"))[0].references == ["3", None]
    assert read(tmp_path, ComparedColumns("classification", "language"))[0].references == ["de", "en"]


def test_speakers_are_read_as_classes_and_one_without_a_name_is_none(tmp_path):
    write_shard(tmp_path / "in" / "a.parquet", table=with_column(["ann", "", None]))
    assert read(tmp_path, ComparedColumns("verification", "x"))[0].references == ["ann", None, None]
    write_shard(tmp_path / "in" / "a.parquet", table=with_column([0, 7, None]))
    assert read(tmp_path, ComparedColumns("verification", "x"))[0].references == ["0", "7", None]


def test_classes_of_datasets_have_their_names_and_minus_one_is_none(tmp_path):
    features = {"x": {"names": ["no", "yes"], "_type": "ClassLabel"}, "audio": {"_type": "Audio"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    write_shard(tmp_path / "in" / "a.parquet", table=with_column([1, 0, -1, None], metadata=metadata))
    assert read(tmp_path, ComparedColumns("classification", "x"))[0].references == ["yes", "no", None, None]
