"""Files of the languages of a checkpoint: those that are fetched, and those that the fingerprint covers."""

import uuid
from pathlib import Path

import fsspec
import pytest
import safetensors.torch

import raysp
from tests import hub_server
from tests.corpora import a_pipeline, rows_table, write_shard
from tests.hub_server import COMMIT
from tests.models.encoder.many_languages import lay_out

NAMES = ["eng", "deu", "fra"]


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    return lay_out(tmp_path / "checkpoint", NAMES)


def status(checkpoint: object, *outputs: object) -> str:
    """Label a row by a checkpoint; return its status."""
    label = raysp.Labeller([raysp.Decode(), raysp.Label(str(checkpoint), outputs=list(outputs))])
    return label(rows_table(1)).to_pylist()[0]["status"]


@pytest.mark.slow
def test_of_a_hub_id_the_adapters_that_are_used_are_fetched_alone(tmp_path, checkpoint, monkeypatch):
    name, cache = f"owner/name@{COMMIT}", tmp_path / "hub"
    with hub_server.serving() as hub:

        def adapters() -> set[str]:
            found = {part for asked in hub.asked for part in asked.split("/") if part.startswith("adapter.")}
            hub.asked.clear()
            return {part.partition("?")[0] for part in found}

        hub_server.use_cache(monkeypatch, cache, hub.url)
        hub.push("owner/name", checkpoint)
        assert status(name, raysp.Transcript(language="deu")) == "ok"
        assert adapters() == {"adapter.deu.safetensors"}
        assert status(name, raysp.Transcript(language="deu"), raysp.Embedding()) == "ok"
        assert adapters() == set()
        [folder] = (cache / "models--owner--name" / "snapshots").iterdir()
        for given, language in ((name, "eng"), (folder, "fra")):  # a snapshot is known by its path
            output = raysp.Transcript(language=language)
            hub_server.use_cache(monkeypatch, cache)
            with pytest.raises((raysp.CheckpointError, raysp.StoreError), match=f"adapter.{language}.safetensors"):
                status(given, output)
            hub_server.use_cache(monkeypatch, cache, hub.url)
            assert status(given, output) == "ok"
            assert adapters() == {f"adapter.{language}.safetensors"}


@pytest.mark.parametrize("named", [raysp.Column("language"), None])
def test_of_a_checkpoint_on_storage_a_pipeline_fetches_the_adapters_that_its_rows_have(
    tmp_path, checkpoint, named, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    url = f"memory://{uuid.uuid4().hex}/model"
    for file in checkpoint.iterdir():
        fsspec.filesystem("memory").pipe_file(f"{url}/{file.name}", file.read_bytes())
    rows = rows_table(2).set_column(3, "language", [["fra", "fra"]])
    outputs = [raysp.Transcript(language=named), raysp.Align("text"), raysp.Embedding()]
    found = raysp.Labeller([raysp.Decode(), raysp.Label(url, outputs=outputs)])(rows).to_pylist()
    fetched = {file.name.split(".")[1] for file in (tmp_path / "cache" / "raysp").rglob("adapter.*")}
    assert fetched == {"eng" if named is None else "fra"}
    expected = raysp.Labeller([raysp.Decode(), raysp.Label(str(checkpoint), outputs=outputs)])(rows).to_pylist()
    assert found == expected
    assert {row["status"] for row in found} == {"ok"}


@pytest.fixture
def fingerprint(tmp_path):
    """Return the fingerprint of labelling by a checkpoint in a language."""
    write_shard(tmp_path / "in" / "a.parquet")

    def planned(checkpoint: Path, language: object) -> str:
        label = raysp.Label(str(checkpoint), outputs=[raysp.Transcript(language=language)])
        return raysp.plan(a_pipeline(f"{tmp_path}/in", tmp_path / "out", steps=[raysp.Decode(), label])).fingerprint

    return planned


def test_a_changed_adapter_changes_the_fingerprint_where_it_is_used(checkpoint, fingerprint):
    used = (("deu", {"deu"}), (raysp.Column("language"), {*NAMES}), (None, {"eng"}))
    before = [fingerprint(checkpoint, language) for language, _ in used]
    for name in NAMES:
        weights = safetensors.torch.load_file(checkpoint / f"adapter.{name}.safetensors")
        weights["lm_head.bias"][0] += 1
        safetensors.torch.save_file(weights, checkpoint / f"adapter.{name}.safetensors")
        found = [fingerprint(checkpoint, language) for language, _ in used]
        assert [a != b for a, b in zip(found, before, strict=True)] == [name in names for _, names in used]
        before = found
