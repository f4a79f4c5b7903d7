"""Checkpoints of pipelines: by url, by digest, by hub id."""

import json
import re
import shutil
from pathlib import Path

import pytest

import raysp
from raysp import CheckpointError
from tests.corpora import CHECKPOINT, a_pipeline, write_shard
from tests.hub_server import COMMIT, lay_out


@pytest.mark.slow
def test_a_checkpoint_is_reached_by_the_options_of_a_source_of_its_scheme(tmp_path, monkeypatch, s3):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    url = s3.url(bucket := s3.bucket())
    s3.upload(CHECKPOINT, bucket, "model/")
    s3.upload(write_shard(tmp_path / "in" / "a.parquet").parent, bucket, "in/")
    steps = [raysp.Decode(), raysp.Label(f"{url}/model", outputs=[raysp.Transcript()])]
    local = a_pipeline(f"{tmp_path}/in", tmp_path / "out", steps=steps)
    with pytest.raises(raysp.RayspError, match=r"127\.0\.0\.1:9|[Cc]redentials"):
        raysp.plan(local)
    pipeline = a_pipeline(raysp.Shards(f"{url}/in", storage_options=s3.options), tmp_path / "out", steps=steps)
    assert raysp.plan(pipeline).settings.checkpoint.architecture == "UniSpeechForCTC"


@pytest.mark.slow
def test_a_checkpoint_that_changes_after_the_plan_is_refused(tmp_path):
    folder = Path(shutil.copytree(CHECKPOINT, tmp_path / "model"))
    write_shard(tmp_path / "in" / "a.parquet")
    steps = [raysp.Decode(), raysp.Label(str(folder), outputs=[raysp.Transcript()])]
    pipeline = a_pipeline(f"{tmp_path}/in", tmp_path / "out", steps=steps)

    plan = raysp.plan(pipeline)

    def change(_: object) -> None:
        raw = bytearray((folder / "model.safetensors").read_bytes())
        raw[-1] ^= 1
        (folder / "model.safetensors").write_bytes(raw)

    with pytest.raises(
        raysp.RayspError, match=r"model'.*its digest was [0-9a-f]+ when .* planned, on this worker it is [0-9a-f]+"
    ) as refused:
        raysp.run(pipeline, engine="here", progress=False, on_plan=change)
    before, after = re.findall(r"(?:was|it is) ([0-9a-f]+)", str(refused.value))[:2]
    assert before in plan.parts.values()
    assert after in raysp.plan(a_pipeline(pipeline.source, tmp_path / "other", steps=steps)).parts.values()


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

    def plan(self, tmp_path, checkpoint: str):
        return raysp.plan(self.pipeline(tmp_path, checkpoint))

    def test_a_plan_keeps_the_commit_that_the_id_meant(self, cache, tmp_path):
        lay_out(cache, CHECKPOINT)

        def push(plan) -> None:
            assert plan.pipeline.label.checkpoint == f"owner/name@{COMMIT}"
            (cache / "models--owner--name" / "refs" / "main").write_text("f" * 40)

        pipeline = self.pipeline(tmp_path, "owner/name")
        assert raysp.run(pipeline, engine="here", progress=False, on_plan=push).shards_committed == 1
        record = json.loads((tmp_path / "out" / ".raysp" / "run.json").read_text())
        assert record["pipeline"]["steps"][1]["checkpoint"] == f"owner/name@{COMMIT}"

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
