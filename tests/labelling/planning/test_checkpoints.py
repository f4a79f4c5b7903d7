"""Checkpoints of pipelines: by url, by digest, by hub id, and what is cached about them."""

import json
import re
import shutil
from pathlib import Path

import pytest

import raysp
from raysp import CheckpointError
from tests.corpora import CHECKPOINT, a_pipeline, write_shard
from tests.hub_server import lay_out, use_cache


@pytest.fixture(autouse=True)
def corpus(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return write_shard(tmp_path / "in" / "a.parquet")


def labelled_by(checkpoint: object, folder: Path, sink: str = "out") -> raysp.Pipeline:
    steps = [raysp.Decode(), raysp.Label(str(checkpoint), outputs=[raysp.Transcript()])]
    return a_pipeline(f"{folder}/in", folder / sink, steps=steps)


@pytest.mark.slow
def test_a_checkpoint_is_reached_by_the_options_of_a_source_of_its_scheme(corpus, tmp_path, monkeypatch, s3):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    url = s3.url(bucket := s3.bucket())
    s3.upload(CHECKPOINT, bucket, "model/")
    s3.upload(corpus.parent, bucket, "in/")
    local = labelled_by(f"{url}/model", tmp_path)
    with pytest.raises(raysp.RayspError, match=r"127\.0\.0\.1:9|[Cc]redentials"):
        raysp.plan(local)
    source = raysp.Shards(f"{url}/in", storage_options=s3.options)
    plan = raysp.plan(a_pipeline(source, tmp_path / "out", steps=local.steps))
    assert plan.settings.checkpoint.architecture == "UniSpeechForCTC"


def test_a_checkpoint_that_changes_after_the_plan_is_refused(tmp_path):
    folder = Path(shutil.copytree(CHECKPOINT, tmp_path / "model"))
    plan = raysp.plan(pipeline := labelled_by(folder, tmp_path))

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
    assert after in raysp.plan(labelled_by(folder, tmp_path, "other")).parts.values()


@pytest.mark.lengthy
def test_a_hub_id_has_the_fingerprint_of_its_files_and_a_push_affects_no_run(tmp_path, monkeypatch):
    use_cache(monkeypatch, tmp_path / "hub")
    snapshot = lay_out(tmp_path / "hub", CHECKPOINT)
    lay_out(tmp_path / "hub", CHECKPOINT, name="other/name", commit="e" * 40)
    names = ("owner/name", "owner/name@v1.0", "other/name", str(CHECKPOINT))
    assert len({raysp.plan(labelled_by(name, tmp_path)).fingerprint for name in names}) == 1
    main = tmp_path / "hub" / "models--owner--name" / "refs" / "main"
    pipeline = labelled_by("owner/name", tmp_path)
    pushed = {"on_plan": lambda _: main.write_text("f" * 40)}  # a commit of which there are no files
    assert raysp.run(pipeline, engine="here", progress=False, **pushed).rows == 3
    main.write_text(snapshot.name)
    assert raysp.run(pipeline, engine="here", progress=False).rows == 0  # goes on from what is there
    with pytest.raises(CheckpointError, match=r"'owner/none': no such folder, and it cannot be loaded"):
        raysp.plan(labelled_by("owner/none", tmp_path))


def test_a_checkpoint_is_checked_once_and_again_where_it_or_the_cache_changed(tmp_path):
    folder = Path(shutil.copytree(CHECKPOINT, tmp_path / "checkpoint"))
    pipeline = labelled_by(folder, tmp_path)

    def described():
        return raysp.plan(pipeline).settings.checkpoint

    found = described()
    assert found.num_parameters > 1000
    [file] = (tmp_path / "cache" / "raysp" / "summaries").iterdir()
    whole = file.read_text()
    file.write_text(whole[:-40])
    assert described() == found
    assert file.read_text() == whole
    file.write_text(re.sub(r'"num_parameters":\s*\d+', '"num_parameters":7', whole))
    assert described().num_parameters == 7
    config = folder / "config.json"
    values = json.loads(config.read_text())
    config.write_text(json.dumps({**values, "num_hidden_layers": values["num_hidden_layers"] - 1}))
    for _ in range(2):  # what was refused is not cached
        with pytest.raises(CheckpointError):
            described()
    config.write_text(json.dumps(values))
    assert described() == found
