"""Local paths are absolute from the plan on: a worker has another working directory."""

import dataclasses
import json
from pathlib import Path

import pytest

import raysp
from raysp import PlanError
from tests.corpora import CHECKPOINT, a_pipeline, write_shard
from tests.kit import failing_files
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


def test_every_local_path_of_a_plan_and_its_record_is_absolute(tmp_path, monkeypatch):
    pipeline = relative(tmp_path, monkeypatch, root="in", audio_root=".")
    plan = raysp.plan(pipeline)
    (tmp_path / "two").mkdir()
    other = relative(tmp_path / "two", monkeypatch, root="in", audio_root=".")
    assert raysp.plan(other).fingerprint == plan.fingerprint
    source = plan.pipeline.source
    assert (source.url, source.root, source.audio_root) == (f"{tmp_path}/in/*.parquet", f"{tmp_path}/in", str(tmp_path))
    assert plan.pipeline.sink.url == str(tmp_path / "out")
    assert [label.checkpoint for label in plan.pipeline.flow.labels] == [str(tmp_path / "model")] * 2
    assert plan.pipeline.outputs[0].lm == str(tmp_path / "words.arpa")
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


def test_urls_stay_as_they_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_shard(tmp_path / "in" / "a.parquet")
    write_arpa(tmp_path / "words.arpa", [["ONE"]], 1)
    with failing_files() as files:
        files.put(tmp_path, "corpus")
        source = raysp.Shards(["memory://corpus/in/a.parquet", "memory://corpus/in/"], root="memory://corpus")
        label = raysp.Label(str(CHECKPOINT), outputs=[raysp.Transcript(beams=2, lm="memory://corpus/words.arpa")])
        found = raysp.plan(a_pipeline(source, steps=[raysp.Decode(), label], sink="memory://labels/out/")).pipeline
        assert (found.source, found.label.outputs) == (source, label.outputs)
        assert found.sink.url == "memory://labels/out/"
        assert raysp.plan(found).pipeline == found


class TestInARayJob:
    """The working directory of a job is the folder into which Ray unpacked its package."""

    @pytest.fixture
    def job(self, tmp_path, monkeypatch) -> raysp.Pipeline:
        folder = tmp_path / "session_1" / "runtime_resources" / "working_dir_files" / "_ray_pkg_1"
        folder.mkdir(parents=True)
        return relative(folder, monkeypatch)

    @pytest.mark.parametrize(
        ("field", "change"),
        [
            ("source.url", {}),
            ("source.root", {"source.url": "/mnt/in", "source.root": "in"}),
            ("source.audio_root", {"source.url": "/mnt/in", "source.audio_root": "clips"}),
            ("sink.url", {"source.url": "/mnt/in"}),
        ],
    )
    def test_a_relative_place_is_refused(self, job, field, change):
        source = {name.partition(".")[2]: value for name, value in change.items()}
        changed = dataclasses.replace(job, source=dataclasses.replace(job.source, **source))
        match = (
            rf"^{field}: .* is the place '/.*/_ray_pkg_1/.*' in this Ray job: .* Ray removes after the job\. Give an"
        )
        with pytest.raises(PlanError, match=match):
            raysp.plan(changed)
        assert not Path("out").exists()

    def test_a_checkpoint_of_the_package_is_used(self, job, tmp_path):
        write_shard(tmp_path / "elsewhere" / "a.parquet")
        places = {"source": raysp.Shards(f"{tmp_path}/elsewhere"), "sink": raysp.Parquet(f"{tmp_path}/out")}
        found = raysp.plan(dataclasses.replace(job, **places)).pipeline
        assert found.label.checkpoint == str(Path("model").absolute())
