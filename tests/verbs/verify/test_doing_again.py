"""Labelling shards and rows of finished sinks again; `verify` is the judge."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import raysp
from raysp import ChangedError, PlanError
from tests import kit
from tests.corpora import DEMO, a_pipeline, write_shard

DIGITS = pq.read_table(min((DEMO / "audio").glob("*.parquet")))


@pytest.fixture
def corpus(tmp_path) -> Path:
    for number in range(3):
        write_shard(tmp_path / "in" / f"{number}.parquet", table=DIGITS.slice(5 * number, 5), row_group_size=2)
    return tmp_path


def pipeline(corpus, sink="out", **fields) -> raysp.Pipeline:
    keep = [raysp.Keep(where=[("speaker_id", "!=", fields.pop("without"))])] if "without" in fields else []
    return a_pipeline(f"{corpus}/in/*.parquet", raysp.Parquet(str(corpus / sink), **fields), keep=keep)


def rows(folder: Path) -> list[dict]:
    return [row for file in sorted(folder.glob("*.parquet")) for row in pq.read_table(file).to_pylist()]


@pytest.mark.slow
def test_another_pipeline_is_refused_with_a_remedy(corpus):
    raysp.run(pipeline(corpus), engine="here", progress=False)
    with pytest.raises(ChangedError, match=r"steps\.1.*; undo the change, or use another sink$"):
        raysp.run(pipeline(corpus, without="jackson"), engine="here", progress=False)
    assert raysp.verify(str(corpus / "out"), sample=5, trust=True).differences == ()
    assert raysp.status(str(corpus / "out")).is_complete


@pytest.mark.slow
@pytest.mark.parametrize("change", [{"keep": ["speaker_id"]}, {"rows": "ok"}])
def test_other_columns_or_rows_are_refused(corpus, change):
    raysp.run(pipeline(corpus, without="jackson"), engine="here", progress=False)
    with pytest.raises(ChangedError, match=r"sink\..*; undo the change, or use another sink$"):
        raysp.run(pipeline(corpus, without="jackson", **change), engine="here", progress=False)
    assert raysp.verify(str(corpus / "out"), trust=True).differences == ()


@pytest.mark.slow
def test_only_the_shard_whose_content_changed_is_labelled_again(corpus):
    raysp.run(pipeline(corpus), engine="here", progress=False)
    before = {file.name: file.stat().st_mtime_ns for file in (corpus / "out").glob("*.parquet")}
    write_shard(corpus / "in" / "1.parquet", table=DIGITS.slice(20, 7))
    with pytest.raises(PlanError, match=r"1\.parquet: its content changed since it was planned.*--shard 1\.parquet`"):
        raysp.run(pipeline(corpus), engine="here", progress=False)
    ran = kit.run(["retry", corpus / "out", "--trust", "--shard", "1.parquet", "--engine", "here"])
    assert (ran.code, "7 labelled again, 0 failed; 1 of 1 label shard replaced" in ran.out) == (0, True), ran.err
    after = {file.name: file.stat().st_mtime_ns for file in (corpus / "out").glob("*.parquet")}
    assert {name for name in before if before[name] != after[name]} == {"1.parquet"}
    assert pq.read_table(corpus / "out" / "1.parquet").column("id") == DIGITS.slice(20, 7).column("id")
    assert raysp.verify(str(corpus / "out"), sample=3, trust=True).differences == ()
    assert raysp.plan(pipeline(corpus)).todo == ()


@pytest.mark.slow
def test_shards_are_named_by_patterns_and_those_that_are_not_there_are_refused(corpus):
    raysp.run(pipeline(corpus), engine="here", progress=False)
    first = rows(corpus / "out")
    found = raysp.retry(f"{corpus}/out", shards="[01].parquet", engine="here", progress=False, trust=True)
    assert (found.rows, found.shards_committed, rows(corpus / "out")) == (10, 2, first)
    with pytest.raises(PlanError, match=r"no shard is named '9\.parquet'; expected names such as 0\.parquet, "):
        raysp.retry(f"{corpus}/out", shards=["9.parquet"], engine="here", progress=False, trust=True)
    (corpus / "in" / "1.parquet").unlink()
    with pytest.raises(PlanError, match=r"1\.parquet is no longer in the source; its labels are kept"):
        raysp.retry(f"{corpus}/out", shards=["1.parquet"], engine="here", progress=False, trust=True)
    assert raysp.status(f"{corpus}/out").ok == 15


class TestRetry:
    @pytest.fixture(params=["all", "ok"])
    def kept(self, request) -> str:
        return request.param

    @pytest.fixture
    def flawed(self, corpus, kept, monkeypatch) -> Path:
        """Three rows fail at the first labelling: the decoder crashes."""
        rows = DIGITS.slice(0, 15).to_pylist()
        for row in (1, 4, 11):
            rows[row]["audio"]["bytes"] = kit.FAULTS["crash_decoder"].audio(rows[row]["audio"]["bytes"])
        table = pa.Table.from_pylist(rows, DIGITS.schema)
        for number in range(3):
            write_shard(corpus / "in" / f"{number}.parquet", table=table.slice(5 * number, 5), row_group_size=2)
        with monkeypatch.context() as once:
            once.setenv("RAYSP_DECODER_FAULTS", f"{kit.CRASH.decode()}=SIGSEGV")
            found = raysp.run(pipeline(corpus, rows=kept), engine="here", progress=False)
        assert found.errors == {"decoder_crashed": 3}
        return corpus

    @pytest.mark.slow
    def test_the_rows_are_done_again_and_the_others_stay_bit_for_bit(self, flawed, kept):
        before = {row["id"]: row for row in rows(flawed / "out") if row["status"] == "ok"}
        assert len(before) == 12
        untouched = (flawed / "out" / "1.parquet").stat().st_mtime_ns
        raysp.retry(f"{flawed}/out", pipeline=pipeline(flawed, rows=kept), engine="here", progress=False)
        after = {row["id"]: row for row in rows(flawed / "out")}
        assert len(after) == 15
        assert {row["status"] for row in after.values()} == {"ok"}
        assert {key: after[key] for key in before} == before
        assert (flawed / "out" / "1.parquet").stat().st_mtime_ns == untouched  # it has no error rows
        raysp.run(pipeline(flawed, "fresh", rows=kept), engine="here", progress=False)
        assert texts(flawed / "out") == texts(flawed / "fresh")
        verified = raysp.verify(str(flawed / "out"), sample=15, trust=True)
        assert (verified.differences, verified.sampled) == ((), 15)
        raysp.gc(str(flawed / "out"))
        assert raysp.verify(str(flawed / "out"), trust=True).differences == ()


def texts(folder: Path) -> list[tuple]:
    return [(row["id"], row["row"], row["pred_text"]) for row in rows(folder)]


@pytest.mark.slow
def test_a_pipeline_is_read_from_its_sink_after_the_sink_moved(corpus):
    raysp.run(pipeline(corpus, keep=["speaker_id"]), engine="here", progress=False)
    moved = (corpus / "out").rename(corpus / "moved")
    verified = raysp.verify(str(moved), sample=4, trust=True)
    assert (verified.differences, verified.sampled) == ((), 4)
    found = raysp.retry(str(moved), trust=True, engine="here", progress=False)
    assert (found.sink, found.rows, found.exit_code) == (str(moved), 0, 0)
