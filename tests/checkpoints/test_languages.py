"""Files of the languages of a checkpoint: those that are fetched, and those that the fingerprint covers."""

import json
import re
import uuid
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
import safetensors.torch

import raysp
from raysp import PlanError
from tests import hub_server, kit
from tests.corpora import rows_table, write_shard
from tests.hub_server import COMMIT
from tests.models.encoder.many_languages import lay_out

NAMES = ["eng", "deu", "fra"]


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    return lay_out(tmp_path / "checkpoint", NAMES)


@pytest.fixture
def hub(tmp_path, monkeypatch, checkpoint) -> Iterator[hub_server.HubServer]:
    """A hub that has the checkpoint, and an empty cache."""
    with hub_server.serving() as served:
        hub_server.use_cache(monkeypatch, tmp_path / "hub", served.url)
        served.push("owner/name", checkpoint)
        yield served


def label(folder: Path, checkpoint: object, *outputs: object) -> set[str]:
    """Label a row by a checkpoint; return its status."""
    write_shard(folder / "in" / "a.parquet", table=rows_table(1))
    steps = [raysp.Decode(), raysp.Label(str(checkpoint), outputs=list(outputs))]
    sink = raysp.Parquet(f"{folder}/{uuid.uuid4().hex}")
    raysp.run(raysp.Pipeline(raysp.Shards(f"{folder}/in"), steps=steps, sink=sink), engine="here", progress=False)
    return {row["status"] for row in kit.rows(sink.url)}


@pytest.mark.slow
def test_of_a_hub_id_the_adapters_that_are_used_are_fetched_alone(tmp_path, hub, monkeypatch):
    def adapters() -> set[str]:
        found = {part for asked in hub.asked for part in asked.split("/") if part.startswith("adapter.")}
        hub.asked.clear()
        return {part.partition("?")[0] for part in found}

    def offline(value: bool) -> None:
        hub_server.use_cache(monkeypatch, tmp_path / "hub", "" if value else hub.url)

    name = f"owner/name@{COMMIT}"
    assert label(tmp_path, name, raysp.Transcript(language="deu")) == {"ok"}
    assert adapters() == {"adapter.deu.safetensors"}
    assert label(tmp_path, name, raysp.Transcript(language="deu"), raysp.Embedding()) == {"ok"}
    assert adapters() == set()
    [folder] = (tmp_path / "hub" / "models--owner--name" / "snapshots").iterdir()
    assert folder.name == COMMIT
    for checkpoint in (name, folder):  # a snapshot is known by its path
        language = "fra" if checkpoint == folder else "eng"
        output = raysp.Transcript(language=language)
        offline(True)
        with pytest.raises((raysp.CheckpointError, raysp.StoreError), match=f"adapter.{language}.safetensors"):
            label(tmp_path, checkpoint, output)
        offline(False)
        assert label(tmp_path, checkpoint, output) == {"ok"}
        assert adapters() == {f"adapter.{language}.safetensors"}
        offline(True)
        assert label(tmp_path, checkpoint, output) == {"ok"}
        offline(False)


@pytest.mark.parametrize("named", ["deu", raysp.Column("language"), None])
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
    assert fetched == {"deu" if named == "deu" else "eng" if named is None else "fra"}
    expected = raysp.Labeller([raysp.Decode(), raysp.Label(str(checkpoint), outputs=outputs)])(rows).to_pylist()
    assert found == expected
    assert {row["status"] for row in found} == {"ok"}


def fingerprint(checkpoint: Path, *outputs: raysp.Transcript, folder: Path) -> str:
    label = raysp.Label(str(checkpoint), outputs=outputs)
    source = raysp.Shards(f"{folder}/*.parquet")
    return raysp.plan(
        raysp.Pipeline(source, steps=[raysp.Decode(), label], sink=raysp.Parquet(f"{folder}/out"))
    ).fingerprint


def change(path: Path) -> None:
    weights = safetensors.torch.load_file(path)
    weights["lm_head.bias"][0] += 1
    safetensors.torch.save_file(weights, path)


@pytest.mark.parametrize(
    ("language", "used"),
    [("deu", {"deu"}), (raysp.Column("language"), {"deu", "fra"}), (None, {"eng"})],
)
def test_a_changed_adapter_changes_the_fingerprint_where_it_is_used(tmp_path, checkpoint, language, used):
    write_shard(tmp_path / "in" / "a.parquet", table=rows_table(2))
    found = [fingerprint(checkpoint, raysp.Transcript(language=language), folder=tmp_path / "in")]
    for one in ("deu", "fra", "eng"):
        change(checkpoint / f"adapter.{one}.safetensors")
        found.append(fingerprint(checkpoint, raysp.Transcript(language=language), folder=tmp_path / "in"))
        assert (found[-1] != found[-2]) == (one in used or isinstance(language, raysp.Column)), one


def test_a_column_of_languages_that_is_missing_or_holds_no_strings_is_refused_by_the_plan(tmp_path, checkpoint):
    write_shard(tmp_path / "in" / "a.parquet", table=rows_table(2).append_column("number", [[1, 2]]))
    for column, message in (("lang", "lang"), ("number", "column 'number' holds int64, expected strings")):
        with pytest.raises(Exception, match=message) as error:
            fingerprint(checkpoint, raysp.Transcript(language=raysp.Column(column)), folder=tmp_path / "in")
        assert isinstance(error.value, PlanError | raysp.ShardError)


def test_similar_names_of_languages_begin_alike_or_have_like_letters(tmp_path):
    folder = lay_out(tmp_path / "model", ["deu", "fra", "uzb-script_cyrillic", "uzb-script_latin", "yor"])
    write_shard(tmp_path / "in" / "a.parquet", table=rows_table(1))
    for asked, near in {
        "Deu": "similar to 'deu'",
        "uzb": "similar to 'uzb-script_cyrillic', 'uzb-script_latin'",
        "zzz": "such as 'deu'",
    }.items():
        message = f"has no language '{asked}'; give one of its 5, {near} (the languages of vocab.json"
        with pytest.raises(PlanError, match=re.escape(message)):
            fingerprint(folder, raysp.Transcript(language=asked), folder=tmp_path / "in")


def test_a_checkpoint_of_one_vocabulary_has_no_languages(tmp_path, checkpoint):
    write_shard(tmp_path / "in" / "a.parquet", table=rows_table(1))
    output = raysp.Transcript(language="yor")
    with pytest.raises(PlanError, match="the checkpoint has no language 'yor'; give one of its 3"):
        fingerprint(checkpoint, output, folder=tmp_path / "in")
    (checkpoint / "vocab.json").write_text(json.dumps({"a": 0}))
    with pytest.raises((PlanError, raysp.CheckpointError)) as found:
        fingerprint(checkpoint, output, folder=tmp_path / "in")
    assert "none (the vocabulary is not nested)" in str(found.value)
