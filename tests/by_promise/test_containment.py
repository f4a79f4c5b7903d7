"""A row reads no file outside the folder that the user named, but for links into a folder that the user allows."""

import os
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import raysp
from raysp import PlanError
from tests import kit
from tests.corpora import a_pipeline, wav

pytestmark = pytest.mark.usefixtures("without_ray")
SECRET = "TOPSECRET"


def snapshot(place: Path, files: dict[str, bytes]) -> Path:
    """Write files as a snapshot of the hub's cache: each is a link into the folder of blobs, two folders above."""
    folder, blobs = place / "datasets--x" / "snapshots" / "0f3a", place / "datasets--x" / "blobs"
    blobs.mkdir(parents=True)
    for number, (name, data) in enumerate(files.items()):
        (blobs / f"{number}").write_bytes(data)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(os.path.relpath(blobs / f"{number}", (folder / name).parent))
    return folder


def metadata(kind: str) -> bytes:
    if kind == "csv":
        return f"file_name,text\na.wav,{SECRET}\n".encode()
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"file_name": ["a.wav"], "text": [SECRET]}), sink)
    return sink.getvalue().to_pybytes()


def run(url: Path, out: Path, **fields: object) -> dict[str, dict[str, object]]:
    """Label a corpus, and return its rows by id."""
    raysp.run(a_pipeline(raysp.Shards(str(url), **fields), out), progress=False)
    return rows_of(out)


def rows_of(out: Path) -> dict[str, dict[str, object]]:
    return {row["id"]: row for row in kit.rows(out)}


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_metadata_that_is_a_link_out_of_the_folder_is_refused_with_its_name(tmp_path, kind):
    folder, secrets = tmp_path / "in", tmp_path / "secrets"
    folder.mkdir()
    secrets.mkdir()
    (folder / "a.wav").write_bytes(wav(8000))
    (secrets / "x").write_bytes(metadata(kind))
    (folder / f"metadata.{kind}").symlink_to(secrets / "x")
    message = rf"in/metadata\.{kind}: .* a link leads out of the folder, to '{secrets}/x'; .*source\.audio_root"
    with pytest.raises(PlanError, match=message):
        raysp.plan(a_pipeline(raysp.Shards(str(folder), text="text"), tmp_path / "out"))
    rows = run(folder, tmp_path / "out", text="text", audio_root=str(secrets))
    assert rows["a.wav"]["text"] == SECRET


@pytest.mark.parametrize("how", ["metadata.csv", "texts"])
def test_a_snapshot_of_the_hub_is_labelled_once_its_links_are_allowed(tmp_path, raysp_command, how):
    beside = {"metadata.csv": metadata("csv")} if how == "metadata.csv" else {"a.txt": SECRET.encode()}
    folder = snapshot(tmp_path, {"a.wav": wav(8000), "sub/b.wav": wav(8000, seed=1)} | beside)
    root = str(tmp_path / "datasets--x")
    if how == "texts":
        rows = run(folder, tmp_path / "out", text="text")
        assert {row["error_type"] for row in rows.values()} == {"path_not_allowed", "unreadable_text"}
        said = rows["sub/b.wav"]["error_message"]
        assert re.search(
            rf"leads out of the folder, to '{root}/blobs/1'; .*source\.audio_root .* such as '{root}'", said
        )
        made = a_pipeline(raysp.Shards(str(folder), text="text"), tmp_path / "out")
        file = kit.pipeline_file(tmp_path / "label.py", made)
        done = raysp_command("retry", file, "--set", f"source.audio_root={root}")
        assert done.code == 0, done.err
    else:
        run(folder, tmp_path / "out", text="text", audio_root=root)
    rows = rows_of(tmp_path / "out")
    assert {name: (row["status"], row["text"]) for name, row in rows.items()} == {
        "a.wav": ("ok", SECRET),
        "sub/b.wav": ("ok", None),
    }
    assert not raysp.plan(a_pipeline(raysp.Shards(str(folder), text="text", audio_root=root), tmp_path / "out")).todo


def test_links_of_files_and_folders_into_another_store_are_allowed_and_no_others(tmp_path):
    store, folder = tmp_path / "store", tmp_path / "links"
    for place in (store / "more", folder):
        place.mkdir(parents=True)
    for name in ("1.wav", "more/2.wav"):
        (store / name).write_bytes(wav(8000))
    (tmp_path / "secret.wav").write_bytes(wav(8000))
    (folder / "own.wav").write_bytes(wav(8000))
    (folder / "utt1.wav").symlink_to(store / "1.wav")
    (folder / "more").symlink_to(store / "more")
    (folder / "out.wav").symlink_to(tmp_path / "secret.wav")
    refused = {"utt1.wav": "path_not_allowed", "more/2.wav": "path_not_allowed"}
    contained = run(folder, tmp_path / "contained")
    assert {name: row["error_type"] for name, row in contained.items()} == {
        "own.wav": None,
        "out.wav": "path_not_allowed",
        **refused,
    }
    allowed = run(folder, tmp_path / "allowed", audio_root=str(store))
    assert {name for name, row in allowed.items() if row["error_type"]} == {"out.wav"}
    assert f"expected a file in {folder} or {store}" in allowed["out.wav"]["error_message"]


@pytest.mark.parametrize("name", ["a.wav", "a.parquet", "m.jsonl"])
def test_a_pipe_is_refused_and_never_waited_for(tmp_path, name):
    folder = tmp_path / "in"
    folder.mkdir()
    os.mkfifo(folder / name)
    if name == "a.wav":
        rows = run(folder, tmp_path / "out")
        assert rows["a.wav"]["error_message"].startswith("path 'a.wav': it is not a file")
        return
    message = rf"in/{name}: is a pipe, a socket or a device; expected a regular file"
    pipeline = a_pipeline(raysp.Shards(str(folder / name)), tmp_path / "out")
    if name == "a.parquet":
        assert re.search(message, raysp.plan(pipeline).corpus.unreadable[name])
    else:
        with pytest.raises(PlanError, match=message):
            raysp.plan(pipeline)
