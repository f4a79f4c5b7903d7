"""Rows that kill or stop the process that touches them: found one by one, and nothing else is lost."""

from dataclasses import replace

import pytest

import raysp
from raysp import run
from tests import kit
from tests.corpora import wav
from tests.labelling.engine.deadly import DeadlyTranscript
from tests.runs import audio_shard, read_labels

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.usefixtures("local_ray")]

ONE, TWO = ((row["id"], row["audio"]) for row in kit.digits(2))
CRASHING, HANGING, DEADLY = ("crash", wav(32_000)), ("hang", wav(48_000)), ("deadly", TWO[1])
SPARING = raysp.Keep(where="tests.labelling.engine.deadly:spares_nobody")


@pytest.fixture
def shards(tmp_path):
    """Write shards of rows by name, and return their folder."""

    def write(**shards: list[tuple[str, bytes]]):
        (tmp_path / "corpus").mkdir()
        for name, rows in shards.items():
            audio_shard(tmp_path / "corpus" / f"{name}.parquet", rows)
        return tmp_path / "corpus"

    return write


@pytest.mark.drivers
def test_rows_that_crash_processes_become_errors_and_their_shards_are_committed(make_pipeline, shards, tmp_path):
    corpus = shards(
        good=[ONE, TWO], model=[ONE, CRASHING, TWO], reader=[ONE, DEADLY], both=[ONE, CRASHING, DEADLY, TWO]
    )
    result = run(make_pipeline(corpus, outputs=[DeadlyTranscript()], steps=[SPARING]))
    assert (result.exit_code, result.shards_committed) == (0, 4), result.shards_failed
    assert (result.rows, result.errors) == (2 + 3 + 2 + 4, {"worker_crashed": 4})
    check(tmp_path / "labels", {"crash", "deadly"})


@pytest.mark.drivers
def test_a_shard_whose_commit_crashes_its_worker_fails_alone(make_pipeline, shards):
    """A filter behind `Label` runs when its shard is committed."""
    pipeline = make_pipeline(shards(a=[ONE], b=[DEADLY], c=[TWO]))
    result = run(replace(pipeline, steps=[*pipeline.steps, SPARING]))
    assert (result.exit_code, result.shards_committed, [*result.shards_failed]) == (3, 2, ["b.parquet"])


@pytest.mark.soak
def test_a_row_on_which_the_model_hangs_is_found_by_its_timeout(make_pipeline, shards, tmp_path, monkeypatch):
    monkeypatch.setenv("RAYSP_HANG_SECONDS", "20")
    result = run(make_pipeline(shards(good=[ONE], hang=[HANGING, ONE]), outputs=[DeadlyTranscript()]))
    assert (result.exit_code, result.errors) == (0, {"worker_crashed": 1})
    check(tmp_path / "labels", {"hang"})


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
