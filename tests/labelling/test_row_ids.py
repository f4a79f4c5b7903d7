"""Ids of sources that name no column of ids."""

from pathlib import Path

import pytest

import raysp
from raysp import ChangedError, PlanError
from tests import kit
from tests.corpora import a_pipeline, rows_table, write_shard


def without_ids(path: Path, num_rows: int = 2) -> None:
    write_shard(path, table=rows_table(num_rows).drop_columns("id"))


def numbered(folder: Path, **fields: object) -> raysp.Pipeline:
    return a_pipeline(raysp.Shards(f"{folder}/in", **fields), folder / "out")


def test_rows_of_a_source_without_a_column_id_are_numbered_and_added_shards_do_not_change_them(tmp_path):
    without_ids(tmp_path / "in" / "a.parquet")
    plan = raysp.plan(numbered(tmp_path))
    assert "no column 'id': ids are <shard>:<row>" in plan.notes
    assert plan.fingerprint == raysp.plan(numbered(tmp_path, id=None)).fingerprint
    raysp.run(numbered(tmp_path), engine="here", progress=False)
    assert raysp.plan(numbered(tmp_path)).todo == ()
    assert raysp.verify(f"{tmp_path}/out", pipeline=numbered(tmp_path)).exit_code == 0
    without_ids(tmp_path / "in" / "0.parquet", 1)
    raysp.run(numbered(tmp_path), engine="here", progress=False)
    assert [row["id"] for row in kit.rows(tmp_path / "out")] == ["0:0", "a:0", "a:1"]


def test_a_shard_without_ids_among_others_and_ids_where_labels_have_numbers_are_refused(tmp_path):
    write_shard(tmp_path / "in" / "a.parquet", 2)
    raysp.run(numbered(tmp_path, id=None), engine="here", progress=False)
    with pytest.raises(ChangedError, match=r"source\.id"):
        raysp.plan(numbered(tmp_path))
    without_ids(tmp_path / "in" / "b.parquet")
    with pytest.raises(PlanError, match=r"b\.parquet: has no column 'id'.* or to None"):
        raysp.plan(a_pipeline(f"{tmp_path}/in", tmp_path / "other"))
