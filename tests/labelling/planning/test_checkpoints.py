"""Checkpoints of pipelines: by url, by digest, by hub id."""

from pathlib import Path

import pytest

import raysp
from raysp import CheckpointError
from raysp.checkpoints import locating
from raysp.cluster.resources import Resources
from raysp.labelling.planning import planned_checkpoint
from raysp.labelling.planning.opening import make_plan
from raysp.labelling.planning.retrying import recorded_pipeline
from raysp.labelling.planning.run_plan import Opened, Plan
from tests.corpora import CHECKPOINT, a_pipeline, write_shard
from tests.hub_server import COMMIT, lay_out


def test_a_checkpoint_is_reached_by_the_options_of_a_source_of_its_scheme(monkeypatch):
    asked = []
    monkeypatch.setattr(locating, "fetch", lambda url, options, **_: asked.append(options) or Path("copy"))
    options = {"key": "A", "secret": raysp.Env("S")}
    label = raysp.Label("s3://models/m", outputs=[raysp.Transcript()])
    for url in ("s3://corpus/in", "memory://corpus/in"):
        source = raysp.Shards(url, storage_options=options)
        pipeline = a_pipeline(source, steps=[raysp.Decode(), label])
        assert planned_checkpoint.checkpoint_folder(pipeline) == Path("copy")
    assert asked == [options, {}]


def test_a_checkpoint_that_came_with_other_bytes_is_refused():
    with pytest.raises(
        CheckpointError, match=r"s3://m.*its digest was 00ff when .* planned, on this worker it is [0-9a-f]+"
    ):
        planned_checkpoint.check_digest("s3://m", CHECKPOINT, "00ff")


class TestHubIds:
    @pytest.fixture
    def cache(self, tmp_path, monkeypatch) -> Path:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        monkeypatch.chdir(tmp_path)
        return tmp_path / "hub"

    def pipeline(self, tmp_path, checkpoint: str) -> raysp.Pipeline:
        write_shard(tmp_path / "in" / "a.parquet")
        label = raysp.Label(checkpoint, outputs=[raysp.Transcript()])
        return a_pipeline(
            raysp.Shards(str(tmp_path / "in")), steps=[raysp.Decode(), label], sink=raysp.Parquet(str(tmp_path / "out"))
        )

    def plan(self, tmp_path, checkpoint: str) -> Plan:
        return make_plan(Opened.of(self.pipeline(tmp_path, checkpoint), Resources(4)))

    def test_a_plan_keeps_the_commit_that_the_id_meant(self, cache, tmp_path):
        lay_out(cache, CHECKPOINT)

        def push(plan: Plan) -> None:
            assert plan.pipeline.label.checkpoint == f"owner/name@{COMMIT}"
            (cache / "models--owner--name" / "refs" / "main").write_text("f" * 40)

        pipeline = self.pipeline(tmp_path, "owner/name")
        assert raysp.run(pipeline, engine="here", progress=False, on_plan=push).shards_committed == 1
        assert recorded_pipeline(str(tmp_path / "out")).label.checkpoint == f"owner/name@{COMMIT}"

    @pytest.mark.lengthy
    def test_the_fingerprint_is_that_of_the_same_files_in_a_folder(self, cache, tmp_path, monkeypatch):
        lay_out(cache, CHECKPOINT)
        of_folder = self.plan(tmp_path, str(CHECKPOINT)).fingerprint
        assert self.plan(tmp_path, "owner/name@v1.0").fingerprint == of_folder
        elsewhere = tmp_path / "elsewhere"
        lay_out(elsewhere, CHECKPOINT, name="other/name", commit="e" * 40)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(elsewhere))
        assert self.plan(tmp_path, "other/name").fingerprint == of_folder

    def test_an_id_that_is_not_there_is_refused_before_any_work(self, cache, tmp_path):
        with pytest.raises(CheckpointError, match=r"'owner/none': no such folder, and it cannot be loaded"):
            self.plan(tmp_path, "owner/none")
        assert not (tmp_path / "out").exists()

    def test_a_folder_goes_before_an_id_of_its_name(self, cache, tmp_path):
        (tmp_path / "owner").mkdir()
        (tmp_path / "owner" / "name").symlink_to(CHECKPOINT)
        assert self.plan(tmp_path, "owner/name").pipeline.label.checkpoint == str(tmp_path / "owner" / "name")
