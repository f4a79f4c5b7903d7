"""Functions of `Map` on Ray: which processes call them, and what happens when these end."""

from pathlib import Path

import pytest

import raysp
from raysp import run
from tests.runs import read_labels

pytestmark = pytest.mark.cluster

CODE = '''
import os
import pathlib

HERE = pathlib.Path({folder!r})


def measure(rows):
    samples = [one["samples"] for one in rows.column("audio")]
    return {{"length": [len(one.values) for one in samples]}}


def double(rows):
    """Double the length, and end this process for one row."""
    ids = rows.column("id").to_pylist()
    if (HERE / "deadly").exists() and (HERE / "deadly").read_text() in ids:
        os._exit(1)
    return {{"twice": [2 * one for one in rows.column("length").to_pylist()]}}
'''


@pytest.fixture
def steps(tmp_path, monkeypatch):
    """Return two steps that add columns, and one that filters by them."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "measures_of_a_user.py").write_text(CODE.format(folder=str(tmp_path)))
    monkeypatch.syspath_prepend(str(tmp_path / "code"))
    measured = {"length": "int32"}
    doubled = {"twice": "int32"}
    return [
        raysp.Map("measures_of_a_user:measure", adds=measured, reads=["audio"]),
        raysp.Map("measures_of_a_user:double", adds=doubled, reads=["id", "length"]),
        raysp.Keep(where=[("twice", "!=", 0)]),
    ]


def rows_of(folder: Path) -> list[dict[str, object]]:
    return read_labels(folder).to_pylist()


def without_score(row: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in row.items() if name != "pred_score"}


@pytest.fixture
def expected(make_pipeline, small_shards, steps, tmp_path) -> list[dict[str, object]]:
    raysp.run(make_pipeline(small_shards, steps=steps, sink="expected"), engine="here", progress=False)
    return [without_score(row) for row in rows_of(tmp_path / "expected")]


@pytest.mark.drivers
def test_a_row_that_ends_every_process_becomes_an_error_row_until_it_is_retried(
    local_ray, make_pipeline, small_shards, steps, expected, tmp_path
):
    names = [row["id"] for row in expected]
    (tmp_path / "deadly").write_text(names[3])
    pipeline = make_pipeline(small_shards, steps=steps)
    run(pipeline)
    found = [without_score(row) for row in rows_of(tmp_path / "labels")]
    assert found[3]["error_type"] == "worker_crashed"
    assert found[3]["twice"] is None
    assert [*found[:3], *found[4:]] == [*expected[:3], *expected[4:]]
    raysp.retry(pipeline.sink.url, pipeline=pipeline, progress=False)
    found = [without_score(row) for row in rows_of(tmp_path / "labels")]
    assert found[3]["error_type"] == "worker_crashed"
    (tmp_path / "deadly").unlink()
    raysp.retry(pipeline.sink.url, pipeline=pipeline, progress=False)
    assert [without_score(row) for row in rows_of(tmp_path / "labels")] == expected
