"""Relabelling and retrying whole sinks, by the parts of a run and without Ray; `verify` is the judge."""

from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import raysp
from raysp import ChangedError, PlanError
from raysp.labelling.planning.opening import make_plan
from raysp.labelling.planning.run_plan import Opened
from raysp.sink import footer
from raysp.storage.store import LocalStore
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
def test_another_pipeline_is_refused_with_a_remedy_and_relabels_on_request(corpus):
    raysp.run(pipeline(corpus), engine="here", progress=False)
    with pytest.raises(ChangedError, match=r"steps\.1.*or replace the labels that differ with --relabel"):
        raysp.run(pipeline(corpus, without="jackson"), engine="here", progress=False)
    raysp.run(pipeline(corpus, without="jackson"), relabel=True, engine="here", progress=False)
    raysp.run(pipeline(corpus, "fresh", without="jackson"), engine="here", progress=False)
    assert rows(corpus / "out") == rows(corpus / "fresh")
    assert raysp.verify(str(corpus / "out"), sample=5).differences == ()
    assert raysp.status(str(corpus / "out")).is_complete


@pytest.mark.slow
def test_relabelled_and_back_again_equals_the_original(corpus):
    raysp.run(pipeline(corpus), engine="here", progress=False)
    first = rows(corpus / "out")
    raysp.run(pipeline(corpus, without="jackson"), relabel=True, engine="here", progress=False)
    assert rows(corpus / "out") != first
    raysp.run(pipeline(corpus), relabel=True, engine="here", progress=False)
    assert rows(corpus / "out") == first
    assert raysp.verify(str(corpus / "out")).differences == ()


@pytest.mark.slow
@pytest.mark.parametrize("change", [{"keep": ["speaker_id"]}, {"rows": "ok"}])
def test_other_columns_or_rows_are_put_in_place_on_request(corpus, change):
    raysp.run(pipeline(corpus, without="jackson"), engine="here", progress=False)
    with pytest.raises(ChangedError, match=r"sink\..*--relabel"):
        raysp.run(pipeline(corpus, without="jackson", **change), engine="here", progress=False)
    raysp.run(pipeline(corpus, without="jackson", **change), relabel=True, engine="here", progress=False)
    raysp.run(pipeline(corpus, "fresh", without="jackson", **change), engine="here", progress=False)
    assert rows(corpus / "out") == rows(corpus / "fresh")
    assert raysp.verify(str(corpus / "out")).differences == ()


@pytest.mark.slow
def test_only_the_shard_whose_content_changed_is_labelled_again(corpus):
    raysp.run(pipeline(corpus), engine="here", progress=False)
    before = {file.name: file.stat().st_mtime_ns for file in (corpus / "out").glob("*.parquet")}
    write_shard(corpus / "in" / "1.parquet", table=DIGITS.slice(20, 7))
    with pytest.raises(PlanError, match=r"1\.parquet: its content changed since it was planned.*--relabel"):
        raysp.run(pipeline(corpus), engine="here", progress=False)
    raysp.run(pipeline(corpus), relabel=True, engine="here", progress=False)
    after = {file.name: file.stat().st_mtime_ns for file in (corpus / "out").glob("*.parquet")}
    assert {name for name in before if before[name] != after[name]} == {"1.parquet"}
    assert pq.read_table(corpus / "out" / "1.parquet").column("id") == DIGITS.slice(20, 7).column("id")
    assert raysp.verify(str(corpus / "out"), sample=3).differences == ()
    assert make_plan(Opened.of(pipeline(corpus))).todo == ()


@pytest.mark.slow
def test_a_relabelling_that_differs_in_nothing_does_nothing(corpus):
    raysp.run(pipeline(corpus), engine="here", progress=False)
    plan = make_plan(Opened.of(pipeline(corpus)), relabel=True)
    assert (plan.todo, len(plan.done)) == ((), 3)


class TestRetry:
    @pytest.fixture(params=["all", "ok"])
    def flawed(self, corpus, request, monkeypatch) -> Path:
        """Two rows fail at the first labelling, as if a decoder had crashed."""
        from raysp import AudioError, audio
        from raysp.audio import stream_decoding

        ids = {DIGITS.column("id")[row].as_py(): row for row in (1, 4, 11)}
        bad = {bytes(DIGITS.column("audio")[row].as_py()["bytes"]) for row in ids.values()}
        decode_chunks = stream_decoding.decode_chunks

        def crash(excerpt, wanted):
            if bytes(excerpt.audio) in bad:
                raise AudioError("decoder_crashed", "signal 11")
            return decode_chunks(excerpt, wanted)

        with monkeypatch.context() as once:
            # In this process, where it can be made to fail.
            once.setattr("raysp.labelling.engine.workers.reader.process_decoder", lambda: audio)
            once.setattr("raysp.labelling.engine.here.close_decoder", lambda: None)
            once.setattr(stream_decoding, "decode_chunks", crash)
            raysp.run(pipeline(corpus, rows=request.param), engine="here", progress=False)
        return corpus

    @pytest.mark.slow
    def test_the_rows_are_done_again_and_the_others_stay_bit_for_bit(self, flawed):
        before = {row["id"]: row for row in rows(flawed / "out") if row["status"] == "ok"}
        assert len(before) == 12
        recorded = pipeline(flawed, rows=raysp_rows(flawed))
        untouched = (flawed / "out" / "1.parquet").stat().st_mtime_ns
        raysp.retry(recorded.sink.url, pipeline=recorded, engine="here", progress=False)
        after = {row["id"]: row for row in rows(flawed / "out")}
        assert len(after) == 15
        assert {row["status"] for row in after.values()} == {"ok"}
        assert {key: after[key] for key in before} == before
        assert (flawed / "out" / "1.parquet").stat().st_mtime_ns == untouched  # it has no error rows
        raysp.run(pipeline(flawed, "fresh", rows=raysp_rows(flawed)), engine="here", progress=False)
        assert texts(flawed / "out") == texts(flawed / "fresh")
        verified = raysp.verify(str(flawed / "out"), sample=15)
        assert (verified.differences, verified.sampled) == ((), 15)
        raysp.gc(str(flawed / "out"))
        assert raysp.verify(str(flawed / "out")).differences == ()

    @pytest.mark.slow
    def test_the_counts_are_those_of_the_new_rows(self, flawed):
        assert footer.read(LocalStore(flawed / "out"), "0.parquet").receipt.error == 2
        made = pipeline(flawed, rows=raysp_rows(flawed))
        raysp.retry(made.sink.url, pipeline=made, engine="here", progress=False)
        assert footer.read(LocalStore(flawed / "out"), "0.parquet").receipt.error == 0


def raysp_rows(folder: Path) -> str:
    from raysp.labelling.planning.retrying import recorded_pipeline

    return recorded_pipeline(str(folder / "out")).sink.rows


def texts(folder: Path) -> list[tuple]:
    return [(row["id"], row["row"], row["pred_text"]) for row in rows(folder)]


@pytest.mark.slow
def test_a_pipeline_is_read_from_its_sink_after_the_sink_moved(corpus):
    from raysp.labelling.planning.retrying import recorded_pipeline

    raysp.run(pipeline(corpus, keep=["speaker_id"]), engine="here", progress=False)
    moved = (corpus / "out").rename(corpus / "moved")
    given = pipeline(corpus, "moved", keep=["speaker_id"])
    steps = tuple(replace(step, backend="torch") if isinstance(step, raysp.Label) else step for step in given.steps)
    assert recorded_pipeline(str(moved)) == replace(given, steps=steps)  # the record names the backend that was chosen
