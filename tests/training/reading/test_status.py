"""Progress of a training, as its sink shows it; and what the commands for sinks of labels do there."""

import os
import time
from dataclasses import asdict

import pytest

import raysp
from raysp import PlanError, Schedule, finetune
from tests.recipes import a_recipe
from tests.trainings import Sink


@pytest.fixture
def sink(tmp_path) -> Sink:
    return Sink(tmp_path / "model")


def status(sink: Sink):
    return raysp.status(sink.url)


def test_loss_rate_and_speed_are_those_of_the_last_fifty_steps(tmp_path):
    sink = Sink(tmp_path / "model", schedule={"epochs": 20, "steps": None})
    sink.train(range(1, 100), loss=9.0)
    sink.train(range(100, 150), loss=2.0, learning_rate=1e-5, audio_seconds=100.0, seconds=4.0, waited=1.0)
    expected = {"number": 50, "loss": 2.0, "learning_rate": 1e-5, "audio_per_second": 25.0, "waited": 0.25}
    assert asdict(status(sink).last_steps) == expected
    sink.train([150], loss=0.0, rows=0)  # no row of it could be decoded
    assert status(sink).last_steps.loss == 2.0


def test_the_time_left_is_that_since_the_last_commit(sink):
    sink.train(range(1, 21))
    assert status(sink).eta_seconds is None  # nobody is at work
    sink.hold()
    found = status(sink)
    assert found.running.name == "YES"
    assert 30 <= found.eta_seconds <= 40  # of 20 steps of 2 seconds
    os.utime(f"{sink.url}/.raysp/steps/20.json", (time.time() - 3600,) * 2)
    assert status(sink).eta_seconds == 0.0


@pytest.mark.parametrize(
    ("metric", "values", "step"),
    [
        ("wer", [0.3, 0.2, 0.2, 0.4], 20),
        ("accuracy", [0.3, 0.9, 0.2], 20),
        ("loss", [3.0, None, 2.0], 30),
        ("loss", [3.0, float("nan")], 10),
        ("cer", [None, None], None),
        ("wer", [], None),
    ],
)
def test_the_best_evaluation_is_that_of_the_best_value(sink, metric, values, step):
    sink.train(range(1, 41))
    for done, value in enumerate(values, 1):
        metrics = {} if metric == "loss" else {metric: {"value": value, "low": None, "high": None}}
        scores = {"rows": 1, "metrics": metrics, "counts": {}, "seconds": None}
        loss = value if metric == "loss" else None
        sink.evaluate(10 * done, metric=metric, scores=scores, by={}, worst=[], loss=loss)
    found = status(sink).best
    assert (found and found.steps) == step
    assert found is None or found.metric == metric


def test_evaluations_count_once_their_step_is_committed_and_the_last_run_of_a_step_counts(sink):
    sink.train(range(1, 31))
    sink.evaluate(0, wer=0.05)  # of the weights before the training, which are never its best
    assert status(sink).best is None
    for done, wer in ((10, 0.9), (20, 0.5), (30, 1.0), (40, 0.1)):
        sink.evaluate(done, wer=wer)
    found = status(sink).best
    assert (found.steps, found.metric, found.estimate.value, found.evaluations) == (20, "wer", 0.5, 3)
    assert found.before.value == 0.05
    sink.commit(40)
    assert (status(sink).best.steps, status(sink).best.evaluations) == (40, 4)
    for run_id, wer in (("20270103", 0.4), ("20270102", 0.01)):
        sink.begin(run_id)
        sink.evaluate(40, run_id=run_id, wer=wer)
    assert (status(sink).best.estimate.value, status(sink).best.evaluations) == (0.4, 4)


def test_gc_removes_what_killed_trainings_left_and_nothing_else(sink):
    sink.train(range(1, 11))
    sink.export(10)
    sink.files.write(".raysp/report.html", b"")
    sink.files.write(".raysp/index/source.parquet", b"")
    sink.evaluate(10)
    left = {
        ".raysp/steps/11.ab/model.safetensors": "of a step that was not committed",
        ".raysp/steps/11.ab/optimizer.safetensors": "of a step that was not committed",
        ".raysp/tmp/x": "a temporary file of a process that has ended",
    }
    for path in left:
        sink.files.write(path, b"left")
    before = {*sink.files.paths()}
    dry = raysp.gc(sink.url, dry_run=True)
    assert {orphan.path: orphan.reason for orphan in dry.orphans} == left
    assert {*sink.files.paths()} == before
    found = raysp.gc(sink.url)
    assert (found.removed, found.orphans, found.num_bytes) == (True, dry.orphans, 12)
    after = {*sink.files.paths()}
    assert before - after == left.keys()
    assert {path.rpartition("/")[0] for path in after - before} == {".raysp/lease"}
    assert status(sink).steps == 10


def test_gc_is_refused_while_a_training_is_active(words, tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("RAYSP_BEAT_SECONDS", "0.2")
    url, refused = str(tmp_path / "out"), []

    def clean(_: object) -> None:
        for dry_run in (True, False):
            with pytest.raises(PlanError, match="is running on this sink"):
                raysp.gc(url, dry_run=dry_run)
            refused.append(dry_run)

    finetune(a_recipe(words, tiny, url, schedule=Schedule(steps=1)), on_plan=clean)
    assert refused == [True, False]
    assert raysp.gc(url).removed
