"""Rows that kill or stop the process that touches them: found one by one, and nothing else is lost."""

from dataclasses import replace

import pyarrow.parquet as pq
import pytest

import raysp
from raysp import run
from tests.corpora import wav
from tests.labelling.engine.deadly import DeadlyTranscript
from tests.runs import DEMO, audio_shard, read_labels

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


@pytest.mark.drivers
def test_rows_that_crash_processes_become_errors_and_their_shards_are_committed(local_ray, make_pipeline, tmp_path):
    (one, two), corpus = digits(2), tmp_path / "corpus"
    corpus.mkdir()
    model, reader = ("crash", wav(32_000)), ("deadly", two[1])
    audio_shard(corpus / "good.parquet", [one, two])
    audio_shard(corpus / "model.parquet", [one, model, two])
    audio_shard(corpus / "reader.parquet", [one, reader])
    audio_shard(corpus / "both.parquet", [one, model, reader, two])
    keep = raysp.Keep(where="tests.labelling.engine.deadly:spares_nobody")
    pipeline = make_pipeline(corpus, outputs=[DeadlyTranscript()], steps=[keep])
    result = run(pipeline)
    assert (result.exit_code, result.shards_committed) == (0, 4), result.shards_failed
    assert (result.rows, result.errors) == (2 + 3 + 2 + 4, {"worker_crashed": 4})
    check(tmp_path / "labels", {"crash", "deadly"})


@pytest.mark.drivers
def test_a_shard_whose_commit_crashes_its_worker_fails_alone(local_ray, make_pipeline, tmp_path):
    """A filter behind `Label` runs when its shard is committed."""
    (one, two), corpus = digits(2), tmp_path / "corpus"
    corpus.mkdir()
    for name, rows in {"a": [one], "b": [("deadly", two[1])], "c": [two]}.items():
        audio_shard(corpus / f"{name}.parquet", rows)
    pipeline = make_pipeline(corpus)
    keep = raysp.Keep(where="tests.labelling.engine.deadly:spares_nobody")
    result = run(replace(pipeline, steps=[*pipeline.steps, keep]))
    assert (result.exit_code, result.shards_committed, [*result.shards_failed]) == (3, 2, ["b.parquet"])


@pytest.mark.soak
def test_a_row_on_which_the_model_hangs_is_found_by_its_timeout(local_ray, make_pipeline, tmp_path, monkeypatch):
    monkeypatch.setenv("RAYSP_HANG_SECONDS", "20")
    (good, *_), corpus = digits(1), tmp_path / "corpus"
    corpus.mkdir()
    audio_shard(corpus / "good.parquet", [good])
    audio_shard(corpus / "hang.parquet", [("hang", wav(48_000)), good])
    result = run(make_pipeline(corpus, outputs=[DeadlyTranscript()]))
    assert (result.exit_code, result.errors) == (0, {"worker_crashed": 1})
    check(tmp_path / "labels", {"hang"})


def digits(num_rows: int) -> list[tuple[str, bytes]]:
    rows = pq.read_table(min((DEMO / "audio").glob("*.parquet"))).slice(0, num_rows).to_pylist()
    return [(row["id"], row["audio"]["bytes"]) for row in rows]


def check(sink, deadly: set[str]) -> None:
    """Only the deadly rows are errors, and the others have the texts that they have elsewhere."""
    labels = read_labels(sink).to_pylist()
    texts = {row["id"]: row["pred_text"] for row in labels if row["shard"] == "good.parquet"}
    for row in labels:
        if row["id"] in deadly:
            assert (row["error_type"], row["pred_text"]) == ("worker_crashed", None)
        else:
            assert (row["status"], row["pred_text"]) == ("ok", texts[row["id"]])
    assert raysp.verify(str(sink), trust=True).differences == ()
