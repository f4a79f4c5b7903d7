"""The root that a sink's label shards are named relative to: recorded at the first plan, and kept."""

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pytest

import raysp
from raysp import ChangedError
from tests import kit
from tests.corpora import a_pipeline, rows_table, wav, write_shard

RUN = ".raysp/run.json"


def label(pipeline: raysp.Pipeline) -> None:
    raysp.run(pipeline, engine="here", progress=False)


@pytest.fixture
def data(tmp_path) -> Path:
    write_shard(tmp_path / "data" / "a" / "x.parquet", 2)
    write_shard(tmp_path / "data" / "b" / "y.parquet", 3)
    return tmp_path / "data"


@pytest.fixture
def sink(data, tmp_path) -> Path:
    """A sink of the first folder alone."""
    label(a_pipeline(str(data / "a"), tmp_path / "out"))
    return tmp_path / "out"


def files(sink: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in sink.rglob("*") if file.is_file()}


@pytest.mark.parametrize("name", ["", "b"])
def test_another_root_is_refused_with_both_and_the_remedy(data, sink, name):
    source, other = (
        (raysp.Shards([f"{data}/a", f"{data}/b"]), data) if not name else (raysp.Shards(f"{data}/b"), data / "b")
    )
    shutil.rmtree(sink / ".raysp" / "lease")
    before = files(sink)
    message = (
        rf"{sink}: its label shards are named relative to '{data}/a', this source's to '{other}'.*"
        rf"Set source.root='{data}/a', undo the change of source.url, or use another sink"
    )
    with pytest.raises(ChangedError, match=message) as error:
        raysp.run(a_pipeline(source, sink), engine="here", progress=False)
    assert error.value.differences == (f"source.root: '{data}/a' -> '{other}'",)
    shutil.rmtree(sink / ".raysp" / "lease")
    assert files(sink) == before


def test_a_corpus_that_moved_as_a_whole_continues(data, sink, tmp_path):
    moved = Path(shutil.copytree(data / "a", tmp_path / "moved"))
    plan = raysp.plan(a_pipeline(str(moved), sink))
    assert (plan.corpus.fresh, plan.corpus.vanished) == ((), ())
    label(a_pipeline(str(moved), sink))
    assert json.loads((sink / RUN).read_text())["root"] == str(moved)
    with pytest.raises(ChangedError, match=rf"relative to '{moved}', this source's to '{data}'"):
        raysp.plan(a_pipeline(str(data), sink))


@pytest.mark.parametrize(
    ("url", "root", "expected"),
    [
        ("in/m.jsonl", None, "in"),
        ("in/m.jsonl", ".", ""),
        ("in/voices", None, "in/voices"),
        ("**/x.arrow", None, ""),
        (["in/x.arrow", "in/voices"], None, "in"),
    ],
)
def test_the_root_follows_from_the_urls_and_is_recorded(tmp_path, monkeypatch, url, root, expected):
    (tmp_path / "in" / "voices").mkdir(parents=True)
    (tmp_path / "in" / "voices" / "v.wav").write_bytes(wav())
    (tmp_path / "in" / "m.jsonl").write_text('{"audio_filepath": "voices/v.wav"}\n')
    with pa.ipc.new_file(str(tmp_path / "in" / "x.arrow"), (table := rows_table(1)).schema) as writer:
        writer.write_table(table)
    monkeypatch.chdir(tmp_path)
    kit.interrupted(a_pipeline(raysp.Shards(url, root=root), tmp_path / "out"))
    assert json.loads((tmp_path / "out" / RUN).read_text())["root"] == str(tmp_path / expected)
