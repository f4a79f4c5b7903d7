"""Checkpoints of pipelines: by url, by digest, by hub id."""

import re
import shutil
from pathlib import Path

import pytest

import raysp
from raysp import CheckpointError
from tests.corpora import CHECKPOINT, a_pipeline, write_shard
from tests.hub_server import lay_out


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


@pytest.mark.lengthy
def test_a_hub_id_has_the_fingerprint_of_the_same_files_in_a_folder_and_one_that_is_not_there_is_refused(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    write_shard(tmp_path / "in" / "a.parquet")

    def fingerprint(checkpoint: str, cache: str = "hub") -> str:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / cache))
        steps = [raysp.Decode(), raysp.Label(checkpoint, outputs=[raysp.Transcript()])]
        return raysp.plan(a_pipeline("in", "out", steps=steps)).fingerprint

    lay_out(tmp_path / "hub", CHECKPOINT)
    lay_out(tmp_path / "elsewhere", CHECKPOINT, name="other/name", commit="e" * 40)
    of_folder = fingerprint(str(CHECKPOINT))
    assert fingerprint("owner/name@v1.0") == fingerprint("other/name", "elsewhere") == of_folder
    with pytest.raises(CheckpointError, match=r"'owner/none': no such folder, and it cannot be loaded"):
        fingerprint("owner/none")
    assert not (tmp_path / "out").exists()
