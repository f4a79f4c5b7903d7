"""Shards that cannot be read stay in the record of a sink until they are planned, and every verb counts them."""

import json
from pathlib import Path

import pytest

import raysp
from tests import kit
from tests.corpora import a_pipeline, wav, write_shard

pytestmark = pytest.mark.lengthy
LINES = 10_000
"""Lines of a slice of a manifest."""


def test_every_verb_counts_a_shard_that_could_not_be_read_until_it_can(tmp_path):
    write_shard(tmp_path / "in" / "good.parquet", 2)
    (tmp_path / "in" / "bad.parquet").write_bytes(b"PAR1 junk PAR1")
    pipeline, sink = a_pipeline(str(tmp_path / "in"), tmp_path / "out"), str(tmp_path / "out")
    raysp.run(pipeline, engine="here", progress=False)
    status = raysp.status(sink)
    assert (status.shards, status.shards_committed, status.is_complete) == (2, 1, False)
    assert "bad.parquet" in status.failed["bad.parquet"]
    assert status.unreadable == {"bad.parquet": status.failed["bad.parquet"]}
    verified = raysp.verify(sink, pipeline=pipeline)
    assert (verified.shards, verified.exit_code) == (2, 1)
    assert [one.partition(":")[0] for one in verified.differences] == ["bad.parquet"]
    found = raysp.export(sink, to="jsonl", dest=str(tmp_path / "rows"))
    assert (found.unfinished, found.exit_code) == (("bad.parquet",), 3)
    assert "bad.parquet" in Path(raysp.report(sink)).read_text()
    again = (
        raysp.run(pipeline, engine="here", progress=False),
        raysp.retry(sink, pipeline=pipeline, engine="here", progress=False),
    )
    assert [(one.exit_code, [*one.shards_failed]) for one in again] == [(3, ["bad.parquet"])] * 2
    write_shard(tmp_path / "in" / "bad.parquet", 1)
    assert raysp.run(pipeline, engine="here", progress=False).exit_code == 0
    status = raysp.status(sink)
    assert (status.shards, status.is_complete, status.failed) == (2, True, {})
    assert not raysp.verify(sink, pipeline=pipeline).differences


def test_a_slice_of_a_manifest_keeps_its_name_and_lines_while_an_earlier_one_is_wrong(tmp_path):
    line = json.dumps({"audio_filepath": "a.wav"})
    (tmp_path / "a.wav").write_bytes(wav(20))
    first = [*["nonsense", "7"], *[line] * (LINES - 2)]
    (tmp_path / "m.jsonl").write_text("\n".join([*first, line, line]) + "\n")
    for _ in range(2):
        raysp.run(a_pipeline(str(tmp_path / "m.jsonl"), tmp_path / "out"), engine="here", progress=False)
        status = raysp.status(str(tmp_path / "out"))
        assert [*status.unreadable] == ["m-00000.parquet"]
        assert (status.shards, status.shards_committed, status.rows) == (2, 1, 2)
    assert "line 1" in status.unreadable["m-00000.parquet"]
    assert "and 1 more line (2)" in status.unreadable["m-00000.parquet"]
    begin = sum(len(one) + 1 for one in first)
    [planned] = kit.planned_shards(tmp_path / "out")
    assert (planned["name"], planned["part"]) == ("m-00001.parquet", f"{begin}-{begin + 2 * (len(line) + 1)}")
