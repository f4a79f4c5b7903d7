"""Ids of sources that name no column of ids."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

import raysp
from raysp import ChangedError, PlanError
from tests.corpora import a_pipeline, rows_table, write_shard


def without_ids(path: Path, num_rows: int = 2) -> None:
    write_shard(path, table=rows_table(num_rows).drop_columns("id"))


def ids(sink: Path, name: str = "a.parquet") -> list[object]:
    return pq.read_table(sink / name).column("id").to_pylist()


@pytest.fixture
def folder(tmp_path) -> Path:
    without_ids(tmp_path / "in" / "a.parquet")
    return tmp_path


def numbered(folder: Path, **fields: object) -> raysp.Pipeline:
    return a_pipeline(raysp.Shards(f"{folder}/in", **fields), folder / "out")


def test_rows_of_a_source_without_a_column_id_are_numbered_and_the_plan_says_so(folder):
    plan = raysp.plan(numbered(folder))
    assert "no column 'id': ids are <shard>:<row>" in plan.notes
    assert plan.fingerprint == raysp.plan(numbered(folder, id=None)).fingerprint
    raysp.run(numbered(folder), engine="here", progress=False)
    assert ids(folder / "out") == ["a:0", "a:1"]
    assert raysp.plan(numbered(folder)).todo == ()
    assert raysp.verify(f"{folder}/out", pipeline=numbered(folder)).exit_code == 0


def test_a_shard_without_ids_among_others_is_refused(tmp_path):
    write_shard(tmp_path / "in" / "a.parquet", 2)
    without_ids(tmp_path / "in" / "b.parquet")
    with pytest.raises(PlanError, match=r"b\.parquet: has no column 'id'.* or to None"):
        raysp.plan(numbered(tmp_path))


def test_shards_that_are_added_do_not_change_the_ids_of_a_source(folder):
    raysp.run(numbered(folder), engine="here", progress=False)
    write_shard(folder / "in" / "0.parquet", 1)
    raysp.run(numbered(folder), engine="here", progress=False)
    assert (ids(folder / "out", "0.parquet"), ids(folder / "out")) == (["0:0"], ["a:0", "a:1"])


def test_a_source_with_ids_whose_labels_have_numbers_is_refused_as_before(tmp_path):
    write_shard(tmp_path / "in" / "a.parquet", 2)
    raysp.run(numbered(tmp_path, id=None), engine="here", progress=False)
    with pytest.raises(ChangedError, match=r"source\.id"):
        raysp.plan(numbered(tmp_path))
