"""Paths on a Ray whose workers run elsewhere: in another working directory than the driver."""

import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

import raysp
from raysp import run
from raysp.specs.work_files import with_overrides
from tests.corpora import a_pipeline
from tests.runs import CHECKPOINT, read_labels
from tests.text.beams.arpa_files import write_arpa

pytestmark = pytest.mark.cluster

ELSEWHERE = "/proc/self/cwd"
"""A folder that each process sees as its own working directory."""


def test_relative_paths_are_those_of_the_driver(local_ray, small_shards, tmp_path, monkeypatch):
    """The folder of the driver is not the working directory of the workers."""
    monkeypatch.chdir(tmp_path)
    Path("model").symlink_to(CHECKPOINT)
    steps = [raysp.Decode(), raysp.Label("model", outputs=[raysp.Transcript()])]
    result = run(a_pipeline("corpus/part-0.parquet", "labels", steps=steps))
    assert (result.exit_code, result.sink) == (0, str(tmp_path / "labels"))
    assert read_labels(tmp_path / "labels").num_rows == 20
    assert raysp.verify("labels", trust=True).differences == ()


def test_places_that_workers_do_not_see_are_refused_before_any_work(
    local_ray, make_pipeline, small_shards, tmp_path, monkeypatch
):
    """Each is absolute and there for this process, as /home is on machines that do not share it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").symlink_to(CHECKPOINT)
    write_arpa(tmp_path / "words", [["ONE"]], 1)
    pipeline = make_pipeline(small_shards, outputs=[raysp.Transcript()])
    times = raysp.Label(str(CHECKPOINT), outputs=[raysp.Align("pred_text")])
    pipeline = replace(pipeline, steps=[*pipeline.steps, times])
    places = {
        "source.url": ["source.url=" + ELSEWHERE + "/corpus"],
        "source.audio_root": ["source.audio_root=" + ELSEWHERE + "/corpus"],
        "steps.1.checkpoint": ["steps.1.checkpoint=" + ELSEWHERE + "/model"],
        "steps.1.outputs.0.lm": ["steps.1.outputs.0.beams=2", "steps.1.outputs.0.lm=" + ELSEWHERE + "/words"],
        "steps.2.checkpoint": ["steps.2.checkpoint=" + ELSEWHERE + "/model"],
        "sink.url": ["sink.url=" + ELSEWHERE + "/labels"],
    }
    for field, changes in places.items():
        message = (
            rf"^{field}: 1 of 1 node of the cluster cannot see the files of this process in '{ELSEWHERE}/[^']+'; "
            rf"on [\d.]+: {ELSEWHERE}/.*: (?i:no such file).* Use a location .*s3://"
        )
        for rows in (None, 3):
            with pytest.raises(raysp.PlanError, match=message):
                run(with_overrides(pipeline, changes), rows=rows)
    assert not [path for path in (tmp_path / "labels").rglob("*") if path.is_file()]


def test_a_place_that_is_declared_as_shared_is_not_checked(local_ray, make_pipeline, small_shards, monkeypatch):
    """The workers fail on it later, with the reason."""
    monkeypatch.chdir(small_shards.parent)
    pipeline = make_pipeline(f"{ELSEWHERE}/corpus/part-0.parquet", source={"shared": True})
    with pytest.raises(raysp.RunError, match=r"no shard was committed: part-0\.parquet: /proc/self/cwd/"):
        run(pipeline)


def test_a_try_out_writes_where_the_workers_of_a_cluster_can(
    local_ray, make_pipeline, small_shards, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", ELSEWHERE)  # a temporary folder of the driver's alone
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "mine").write_text("stays")
    result = run(make_pipeline(small_shards), rows=5)
    assert (result.exit_code, result.table.num_rows) == (0, 5)
    assert [path.name for path in (tmp_path / "labels").rglob("*")] == ["mine"]
