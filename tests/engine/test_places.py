"""Paths on a Ray whose workers run elsewhere: in another working directory than the driver."""

import tempfile
from pathlib import Path

import pytest

import raysp
from raysp.engine.running import run, try_out
from tests.engine.conftest import CHECKPOINT, read_labels

pytestmark = pytest.mark.cluster

ELSEWHERE = "/proc/self/cwd"
"""A folder that each process sees as its own working directory."""


@pytest.fixture
def relative(small_shards, tmp_path, monkeypatch) -> raysp.Pipeline:
    """A pipeline of relative paths, in a folder that is not the workers' working directory."""
    monkeypatch.chdir(tmp_path)
    Path("model").symlink_to(CHECKPOINT)
    return raysp.Pipeline(
        source=raysp.Shards("corpus/part-0.parquet"),
        steps=[raysp.Decode(), raysp.Label("model", outputs=[raysp.Transcript()])],
        sink=raysp.Parquet("labels"),
    )


def test_relative_paths_are_those_of_the_driver(local_ray, relative, tmp_path):
    result = run(relative)
    assert (result.exit_code, result.sink) == (0, str(tmp_path / "labels"))
    assert read_labels(tmp_path / "labels").num_rows == 20
    assert raysp.verify("labels").differences == ()


def test_a_sink_that_workers_do_not_see_is_refused_before_any_work(local_ray, make_pipeline, small_shards, monkeypatch):
    """It is absolute and can be written everywhere, as /home is on machines that do not share it."""
    monkeypatch.chdir(small_shards.parent)
    pipeline = make_pipeline(small_shards, sink=f"{ELSEWHERE}/labels")
    message = (
        r"sink.url: 1 of 1 node of the cluster cannot see the files that this process writes to "
        r"'/proc/self/cwd/labels'; on [\d.]+: /proc/self/cwd/labels: no such file. Use a location that all "
        r"machines share: .*s3://"
    )
    with pytest.raises(raysp.PlanError, match=message):
        run(pipeline)
    assert not [path for path in Path("labels").rglob("*") if path.is_file()]
    with pytest.raises(raysp.PlanError, match=r"cannot see the files that this process writes"):
        try_out(pipeline, 3)


def test_a_try_out_writes_where_the_workers_of_a_cluster_can(
    local_ray, make_pipeline, small_shards, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", ELSEWHERE)  # a temporary folder of the driver's alone
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "mine").write_text("stays")
    result, table = try_out(make_pipeline(small_shards), 5)
    assert (result.exit_code, table.num_rows) == (0, 5)
    assert [path.name for path in (tmp_path / "labels").rglob("*")] == ["mine"]
