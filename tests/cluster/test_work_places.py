"""Local paths are absolute from the plan on: a worker has another working directory."""

import dataclasses
import json
from pathlib import Path

import pytest

import raysp
from raysp import PlanError
from tests.corpora import CHECKPOINT, a_pipeline, write_shard
from tests.text.beams.arpa_files import write_arpa


def relative(folder: Path, monkeypatch, **source: object) -> raysp.Pipeline:
    """Make a pipeline all of whose places are relative, and go where they are."""
    write_shard(folder / "in" / "a.parquet")
    (folder / "model").symlink_to(CHECKPOINT)
    monkeypatch.chdir(folder)
    write_arpa(folder / "words.arpa", [["ONE"]], 1)
    label = raysp.Label("model", outputs=[raysp.Transcript(beams=2, lm="words.arpa")])
    times = raysp.Label("model", outputs=[raysp.Align("pred_text")])
    return a_pipeline(raysp.Shards("in/*.parquet", **source), steps=[raysp.Decode(), label, times], sink="out")


def test_every_local_path_of_a_record_is_absolute_and_the_fingerprint_the_same_elsewhere(tmp_path, monkeypatch):
    pipeline = relative(tmp_path, monkeypatch, root="in", audio_root=".")
    plan = raysp.plan(pipeline)
    (tmp_path / "two").mkdir()
    other = relative(tmp_path / "two", monkeypatch, root="in", audio_root=".")
    assert raysp.plan(other).fingerprint == plan.fingerprint
    monkeypatch.chdir(tmp_path)
    raysp.run(pipeline, engine="here", progress=False)
    monkeypatch.chdir("/")
    recorded = json.loads((tmp_path / "out" / ".raysp" / "run.json").read_text())["pipeline"]
    assert {name: recorded["source"][name] for name in ("url", "root", "audio_root")} == {
        "url": f"{tmp_path}/in/*.parquet",
        "root": f"{tmp_path}/in",
        "audio_root": str(tmp_path),
    }
    label, times = [step for step in recorded["steps"] if step["type"] == "Label"]
    assert [label["checkpoint"], times["checkpoint"]] == [str(tmp_path / "model")] * 2
    assert (label["outputs"][0]["lm"], recorded["sink"]["url"]) == (f"{tmp_path}/words.arpa", f"{tmp_path}/out")


def test_a_relative_place_in_a_ray_job_is_refused_except_for_a_checkpoint(tmp_path, monkeypatch):
    """The working directory of a job is the folder into which Ray unpacked its package, which it removes."""
    folder = tmp_path / "session_1" / "runtime_resources" / "working_dir_files" / "_ray_pkg_1"
    folder.mkdir(parents=True)
    job = relative(folder, monkeypatch)
    write_shard(tmp_path / "in" / "a.parquet", 1)
    absolute = f"{tmp_path}/in"
    for field, source, sink in (
        ("source.url", job.source, "/out"),
        ("source.root", raysp.Shards(absolute, root="in"), "/out"),
        ("source.audio_root", raysp.Shards(absolute, audio_root="clips"), "/out"),
        ("sink.url", raysp.Shards(absolute), "out"),
    ):
        refusal = rf"^{field}: .* is the place '/.*/_ray_pkg_1/.*' in this Ray job: .* Ray removes after the job\. Give"
        with pytest.raises(PlanError, match=refusal):
            raysp.plan(dataclasses.replace(job, source=source, sink=raysp.Parquet(sink)))
    assert not Path("out").exists()
    fits = dataclasses.replace(job, source=raysp.Shards(absolute), sink=raysp.Parquet(f"{tmp_path}/out"))
    assert raysp.plan(fits).pipeline.label.checkpoint == str(Path("model").absolute())
