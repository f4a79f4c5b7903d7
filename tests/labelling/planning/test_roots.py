"""The root that a sink's label shards are named relative to: recorded at the first plan, and kept."""

import json
import shutil
from pathlib import Path

import pytest

import raysp
from raysp import ChangedError
from tests.corpora import a_pipeline, write_shard

RUN = ".raysp/run.json"


def test_another_root_is_refused_with_the_remedy_and_a_corpus_that_moved_as_a_whole_continues(tmp_path):
    data, sink = tmp_path / "data", tmp_path / "out"
    write_shard(data / "a" / "x.parquet", 2)
    write_shard(data / "b" / "y.parquet", 3)
    raysp.run(a_pipeline(str(data / "a"), sink), engine="here", progress=False)
    shutil.rmtree(sink / ".raysp" / "lease")
    before = {file: file.read_bytes() for file in sink.rglob("*") if file.is_file()}
    for urls, other in (([f"{data}/a", f"{data}/b"], data), (f"{data}/b", data / "b")):
        message = (
            rf"{sink}: its label shards are named relative to '{data}/a', this source's to '{other}'.*"
            rf"Set source.root='{data}/a', undo the change of source.url, or use another sink"
        )
        with pytest.raises(ChangedError, match=message) as error:
            raysp.run(a_pipeline(raysp.Shards(urls), sink), engine="here", progress=False)
        assert error.value.differences == (f"source.root: '{data}/a' -> '{other}'",)
        shutil.rmtree(sink / ".raysp" / "lease")
        assert {file: file.read_bytes() for file in sink.rglob("*") if file.is_file()} == before

    moved = Path(shutil.copytree(data / "a", tmp_path / "moved"))
    plan = raysp.plan(a_pipeline(str(moved), sink))
    assert (plan.corpus.fresh, plan.corpus.vanished) == ((), ())
    raysp.run(a_pipeline(str(moved), sink), engine="here", progress=False)
    assert json.loads((sink / RUN).read_text())["root"] == str(moved)
    with pytest.raises(ChangedError, match=rf"relative to '{moved}', this source's to '{data}'"):
        raysp.plan(a_pipeline(str(data), sink))
