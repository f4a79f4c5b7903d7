"""Exports to data sets of the Hugging Face hub, on a stand-in for it."""

import pytest

import raysp
from tests.corpora import a_pipeline, digits_table, write_shard
from tests.exports import exported
from tests.hub_server import serving, use_cache

NAME = "datasets/me/digits"
URL = f"hf://{NAME}"


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with serving() as server:
        server.owners = {"me"}
        server.token = "secret"
        server.space = tmp_path / "hub"
        use_cache(monkeypatch, tmp_path / "hf" / "hub", server.url)
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_TOKEN", "secret")
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        yield server


@pytest.fixture
def sink(tmp_path):
    write_shard(tmp_path / "in" / "a.parquet", table=digits_table(3))
    label = {"outputs": [raysp.Transcript(words=True)]}
    raysp.run(a_pipeline(f"{tmp_path}/in/*.parquet", tmp_path / "out", label=label), engine="here", progress=False)
    return tmp_path / "out"


@pytest.mark.parametrize(
    "spec", [raysp.Dataset(), raysp.Clips(min_seconds=0.1), raysp.Jsonl()], ids=lambda spec: spec.NAME
)
def test_the_files_of_an_export_are_one_commit_of_a_private_data_set(hub, sink, tmp_path, spec):
    result = raysp.export(str(sink), spec, URL, trust=True)
    raysp.export(str(sink), spec, f"{tmp_path}/local", trust=True)
    assert (result.dest, result.rows) == (URL, 3)
    assert exported(hub.head(NAME)) == exported(tmp_path / "local")
    assert not (hub.head(NAME) / ".raysp").exists()
    assert hub.created == {NAME: "private"}
    assert len(hub.repos[NAME]) == 2  # the empty one, and the export
    assert exported(tmp_path / "cache" / "raysp" / "exports") == {}


def test_an_export_to_a_folder_of_a_branch_keeps_what_is_there(hub, sink):
    raysp.export(str(sink), raysp.Jsonl(), URL)
    raysp.export(str(sink), raysp.Ctm(), f"{URL}@main/words", dest_options={"private": False})
    assert sorted(exported(hub.head(NAME))) == ["a.jsonl", "words/a.ctm"]


def test_a_rejected_upload_goes_on_without_writing_files_again(hub, sink, tmp_path):
    hub.broken = True
    with pytest.raises(raysp.RunError, match=r"refuses the upload .*finished files are kept"):
        raysp.export(str(sink), raysp.Jsonl(), URL)
    assert [*exported(tmp_path / "cache" / "raysp" / "exports")]
    hub.broken = False
    result = raysp.export(str(sink), raysp.Jsonl(), URL)
    assert (result.shards, result.shards_before) == (1, 1)
    assert [*exported(hub.head(NAME))] == ["a.jsonl"]


@pytest.mark.parametrize(
    ("url", "token", "message"),
    [
        (URL, None, "found no token for the Hugging Face hub; set HF_TOKEN"),
        (URL, "other", "its token is not valid: set HF_TOKEN"),
        ("hf://datasets/you/digits", "secret", "use one with write access to 'you'"),
        ("hf://datasets/nobody/digits", "secret", "there is no owner 'nobody'"),
    ],
)
def test_a_hub_that_takes_nothing_is_named_before_any_work(hub, sink, monkeypatch, tmp_path, url, token, message):
    monkeypatch.delenv("HF_TOKEN")
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(raysp.StoreError, match=message):
        raysp.export(str(sink), raysp.Jsonl(), url)
    assert exported(tmp_path / "cache" / "raysp" / "exports") == {}


@pytest.mark.parametrize("url", ["hf://me/digits", "hf://datasets/me", "hf://spaces/me/digits"])
def test_other_places_of_the_hub_are_refused(sink, url):
    with pytest.raises(raysp.SpecError, match="expected hf://datasets/OWNER/NAME"):
        raysp.export(str(sink), raysp.Jsonl(), url)
