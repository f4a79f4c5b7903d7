"""Local paths are absolute from the plan on: a worker has another working directory."""

from pathlib import Path

import pytest

import raysp
from raysp import PlanError
from raysp.cluster.work_places import with_absolute_paths
from raysp.labelling.planning.retrying import recorded_pipeline
from raysp.specs.work_files import with_overrides
from tests.corpora import CHECKPOINT, a_pipeline, write_shard
from tests.text.beams.arpa_files import write_arpa


def relative(folder: Path, monkeypatch, **source: object) -> raysp.Pipeline:
    """Make a pipeline all of whose places are relative, and go where they are."""
    write_shard(folder / "in" / "a.parquet")
    (folder / "model").symlink_to(CHECKPOINT)
    monkeypatch.chdir(folder)
    write_arpa(folder / "words.arpa", [["ONE"]], 1)
    outputs = [raysp.Transcript(beams=2, lm="words.arpa"), raysp.Align(of="pred", checkpoint="model")]
    label = raysp.Label("model", outputs=outputs)
    return a_pipeline(raysp.Shards("in/*.parquet", **source), steps=[raysp.Decode(), label], sink="out")


def test_every_local_path_of_a_plan_and_its_record_is_absolute(tmp_path, monkeypatch):
    pipeline = relative(tmp_path, monkeypatch, root="in", audio_root=".")
    plan = raysp.plan(pipeline)
    source = plan.pipeline.source
    assert (source.url, source.root, source.audio_root) == (f"{tmp_path}/in/*.parquet", f"{tmp_path}/in", str(tmp_path))
    assert plan.pipeline.sink.url == str(tmp_path / "out")
    transcript, aligned = plan.pipeline.label.outputs
    assert plan.pipeline.label.checkpoint == aligned.checkpoint == str(tmp_path / "model")
    assert transcript.lm == str(tmp_path / "words.arpa")
    raysp.run(pipeline, engine="here", progress=False)
    monkeypatch.chdir("/")
    assert recorded_pipeline(str(tmp_path / "out")) == plan.pipeline


def test_places_are_not_part_of_the_fingerprint(tmp_path, monkeypatch):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    first = raysp.plan(relative(tmp_path / "one", monkeypatch, audio_root="."))
    second = raysp.plan(relative(tmp_path / "two", monkeypatch, audio_root="."))
    assert first.fingerprint == second.fingerprint


def test_urls_and_ids_of_the_hub_stay_as_they_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = raysp.Shards(["s3://corpus/in/", "in"], root="memory://x", text="text")
    outputs = [raysp.Transcript(beams=2, lm="s3://lm/words.arpa"), raysp.Align("text", checkpoint="owner/other")]
    label = raysp.Label("owner/name@main", outputs=outputs)
    found = with_absolute_paths(a_pipeline(source, steps=[raysp.Decode(), label], sink="s3://labels/out/"))
    assert found.source.urls == ("s3://corpus/in/", str(tmp_path / "in"))
    assert (found.source.root, found.sink.url) == ("memory://x", "s3://labels/out/")
    assert found.label == label
    assert with_absolute_paths(found) == found


def test_a_scheme_that_is_not_known_is_refused():
    with pytest.raises(PlanError, match=r"nowhere://b/x"):
        with_absolute_paths(a_pipeline("in", "nowhere://b/x"))


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
        changed = with_overrides(job, [f"{name}={value}" for name, value in change.items()])
        match = (
            rf"^{field}: .* is the place '/.*/_ray_pkg_1/.*' in this Ray job: .* Ray removes after the job\. Give an"
        )
        with pytest.raises(PlanError, match=match):
            raysp.plan(changed)
        assert not Path("out").exists()

    def test_a_checkpoint_of_the_package_is_used(self, job):
        places = with_absolute_paths(with_overrides(job, ["source.url=/mnt/in", "sink.url=/mnt/out"]))
        assert places.label.checkpoint == str(Path("model").absolute())
