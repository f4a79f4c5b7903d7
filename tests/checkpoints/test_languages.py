"""Files of the languages of a checkpoint: those that are fetched, and those that the fingerprint covers."""

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
import safetensors.torch

import raysp
from raysp import PlanError
from raysp.checkpoints import language_adapters
from raysp.checkpoints.hub import snapshot_of
from raysp.storage.stores import open_store
from tests import hub_server
from tests.corpora import rows_table, write_shard
from tests.hub_server import COMMIT
from tests.models.encoder.many_languages import lay_out

NAMES = ["eng", "deu", "fra"]


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    return lay_out(tmp_path / "checkpoint", NAMES)


def in_a_process(server: hub_server.HubServer, home: Path, code: str, **environment: str) -> object:
    """Run code in a process that finds the hub; returns what it prints as JSON, or the last line of its errors."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    env |= {"HF_ENDPOINT": server.url, "HF_HOME": str(home), "HF_HUB_ETAG_TIMEOUT": "2", **environment}
    begin = "import json\nfrom pathlib import Path\nfrom raysp.checkpoints import hub\n"
    command = [sys.executable, "-c", f"{begin}print(json.dumps(str({code})))"]
    ran = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300, check=False)
    return json.loads(ran.stdout) if ran.returncode == 0 else ran.stderr.splitlines()[-1]


@pytest.mark.slow
def test_of_a_hub_id_the_adapters_that_are_used_are_fetched_alone(tmp_path, checkpoint):
    with hub_server.serving() as server:
        server.push("owner/name", checkpoint)

        def adapters() -> set[str]:
            found = {part for asked in server.asked for part in asked.split("/") if part.startswith("adapter.")}
            server.asked.clear()
            return {part.partition("?")[0] for part in found}

        name, home = f"owner/name@{COMMIT}", tmp_path / "home"
        folder = in_a_process(server, home, f"hub.local_checkpoint({name!r}, languages=['deu'])")
        assert adapters() == {"adapter.deu.safetensors"}
        assert in_a_process(server, home, f"hub.local_checkpoint({name!r}, languages=[])") == folder
        assert adapters() == set()
        later = f"hub.with_file(Path({folder!r}), 'adapter.fra.safetensors')"
        assert in_a_process(server, home, later, HF_HUB_OFFLINE="1").startswith("raysp.errors.StoreError: ")
        assert in_a_process(server, home, later) == f"{folder}/adapter.fra.safetensors"
        assert adapters() == {"adapter.fra.safetensors"}
        assert in_a_process(server, home, later, HF_HUB_OFFLINE="1") == f"{folder}/adapter.fra.safetensors"
        assert in_a_process(server, home, f"hub.with_file(Path({folder!r}), 'adapter.xyz.safetensors')") == "None"
        assert in_a_process(server, home, f"hub.local_checkpoint({name!r})") == folder
        assert adapters() == {"adapter.eng.safetensors"}


@pytest.mark.parametrize("named", ["deu", raysp.Column("language"), None])
def test_of_a_checkpoint_on_storage_a_pipeline_fetches_the_adapters_that_its_rows_have(
    tmp_path, checkpoint, named, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    store = open_store(f"memory://{uuid.uuid4().hex}/model")
    for file in checkpoint.iterdir():
        store.create(file.name, file.read_bytes())
    rows = rows_table(2).set_column(3, "language", [["fra", "fra"]])
    outputs = [raysp.Transcript(language=named), raysp.Align("text"), raysp.Embedding()]
    found = raysp.Labeller([raysp.Decode(), raysp.Label(store.url, outputs=outputs)])(rows).to_pylist()
    fetched = {file.name.split(".")[1] for file in (tmp_path / "cache" / "raysp").rglob("adapter.*")}
    assert fetched == {"deu" if named == "deu" else "eng" if named is None else "fra"}
    expected = raysp.Labeller([raysp.Decode(), raysp.Label(str(checkpoint), outputs=outputs)])(rows).to_pylist()
    assert found == expected
    assert {row["status"] for row in found} == {"ok"}


def test_a_snapshot_of_the_hub_is_known_by_its_path(tmp_path):
    folder = tmp_path / "models--owner--name" / "snapshots" / COMMIT
    assert snapshot_of(folder) == f"owner/name@{COMMIT}"
    for other in (tmp_path, folder.parent, tmp_path / "datasets--owner--name" / "snapshots" / COMMIT):
        assert snapshot_of(other) is None


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


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("de", ["deu"]),
        ("Deu", ["deu"]),
        ("uzb", ["uzb-script_cyrillic", "uzb-script_latin"]),
        ("zzz", []),
        ("", []),
    ],
)
def test_similar_names_of_languages_begin_alike_or_have_like_letters(asked, found):
    known = ["deu", "fra", "uzb-script_cyrillic", "uzb-script_latin", "yor"]
    assert language_adapters.similar(asked, known) == found


def test_a_checkpoint_of_one_vocabulary_has_no_languages(tmp_path, checkpoint):
    assert language_adapters.languages_of(checkpoint) == ("deu", "eng", "fra")
    (checkpoint / "vocab.json").write_text(json.dumps({"a": 0}))
    assert language_adapters.languages_of(checkpoint) == ()
    assert language_adapters.languages_of(tmp_path / "none") == ()
