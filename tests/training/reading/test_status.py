"""Progress of a training, as its sink shows it; and what the commands for sinks of labels do there."""

import json
import os
import time
import uuid
from dataclasses import asdict

import pytest

import raysp
from raysp import PlanError, StoreError
from raysp.evaluation.scores import Estimate
from raysp.sink import lease
from raysp.sink.lease import Process, Running
from raysp.storage.store import LocalStore
from raysp.training.reading.training_status import BestEvaluation, TrainingStatus
from raysp.training.sink import evaluation_records, step_metrics
from tests.corpora import a_pipeline
from tests.evaluation.evaluated import an_evaluation
from tests.trainings import Sink


@pytest.fixture
def sink(tmp_path) -> Sink:
    return Sink(tmp_path / "model")


def status(sink: Sink) -> TrainingStatus:
    found = raysp.status(sink.store.url)
    assert isinstance(found, TrainingStatus)
    return found


def test_a_training_without_a_commit_has_done_nothing(sink):
    found = status(sink)
    assert (found.steps, found.epochs, found.share, found.last_steps, found.last_commit) == (0, 0, 0.0, None, None)
    assert (found.epochs_planned, found.steps_planned, found.is_done) == (4, None, False)
    assert found.last_run == sink.run


@pytest.mark.parametrize(
    ("done", "epochs", "share"), [(1, 0, 0.0), (2, 0, 0.05), (13, 1, 0.325), (20, 2, 0.5), (40, 4, 1.0)]
)
def test_steps_epochs_and_share_are_those_of_the_last_commit(sink, done, epochs, share):
    sink.train(range(1, done + 1))
    found = status(sink)
    assert (found.steps, found.epochs, found.is_done) == (done, epochs, done == 40)
    assert found.share == pytest.approx(share)


def test_the_share_of_a_training_of_some_steps_is_that_of_its_steps(tmp_path):
    sink = Sink(tmp_path / "model", schedule={"epochs": None, "steps": 26})
    sink.train(range(1, 14))
    found = status(sink)
    assert (found.steps_planned, found.epochs_planned, found.share) == (26, None, 0.5)


def test_loss_rate_and_speed_are_those_of_the_last_fifty_steps(tmp_path):
    sink = Sink(tmp_path / "model", schedule={"epochs": 20, "steps": None})
    sink.train(range(1, 100), loss=9.0)
    sink.train(range(100, 150), loss=2.0, learning_rate=1e-5, audio_seconds=100.0, seconds=4.0, waited=1.0)
    last = status(sink).last_steps
    assert asdict(last) == {
        "number": 50,
        "loss": 2.0,
        "learning_rate": 1e-5,
        "audio_per_second": 25.0,
        "waited": 0.25,
    }


def test_of_steps_that_several_runs_made_the_last_run_counts_and_steps_after_the_commit_do_not(sink):
    sink.train(range(1, 9), "1", loss=1.0)
    log = step_metrics.MetricsLog(sink.store, "1")
    log.add(sink.step(9, loss=1000.0))
    log.write()
    sink.train(range(5, 9), "2", loss=3.0)
    assert [step.done for step in sink.metrics()] == [*range(1, 10)]
    assert status(sink).last_steps.loss == pytest.approx((4 * 1.0 + 4 * 3.0) / 8)
    assert [step.done for step in step_metrics.load_last(sink.store, 3, until=6)] == [4, 5, 6]


def test_only_the_last_files_of_metrics_are_read_again(sink, monkeypatch):
    for first in range(1, 40, 3):
        sink.train(range(first, first + 3))
    read, original = [], LocalStore.read
    monkeypatch.setattr(LocalStore, "read", lambda self, path: read.append(path) or original(self, path))
    step_metrics.load_last(sink.store, 5, until=39)
    assert len(read) == 2


@pytest.mark.parametrize("random_part", ["0a1b2c", "123456"])
def test_damaged_metrics_are_refused_by_their_name(tmp_path, monkeypatch, random_part):
    monkeypatch.setattr(uuid, "uuid4", lambda: uuid.UUID(random_part.ljust(32, "0")))
    sink = Sink(tmp_path / "model")
    assert sink.run.run_id.endswith(f"-{random_part}")
    sink.store.create(f".raysp/metrics/{sink.run.run_id}-000000001-000000001.jsonl", b'{"done": 1}\n')
    with pytest.raises(StoreError, match=r"-000000001.jsonl: not the metrics of steps .*; remove this file"):
        sink.metrics()


def test_the_time_left_is_that_since_the_last_commit(sink):
    sink.train(range(1, 21))
    assert status(sink).eta_seconds is None  # nobody is at work
    own = lease.acquire(sink.store)
    found = status(sink)
    assert found.running is Running.YES
    assert 30 <= found.eta_seconds <= 40  # of 20 steps of 2 seconds
    os.utime(sink.store.url + "/.raysp/steps/20.json", (time.time() - 3600,) * 2)
    assert status(sink).eta_seconds == 0.0
    own.release()


def test_active_killed_and_remote_trainings_are_distinguished(sink):
    assert status(sink).running is Running.NO
    own = lease.acquire(sink.store)
    assert (status(sink).running, f"pid {os.getpid()}" in status(sink).holder) == (Running.YES, True)
    own.release()
    here = Process.here()
    lease.acquire(sink.store, holder=lease.Holder("ann-1", Process(here.host, here.boot, here.pid, "1"), "2026-01-01"))
    assert status(sink).running is Running.KILLED
    lease.acquire(sink.store, holder=lease.Holder("ann-2", Process("another", "x", 1, "1"), "2026-01-02"))
    assert status(sink).running is Running.ELSEWHERE


def test_the_best_evaluation_is_shown(sink):
    sink.train(range(1, 31))
    for done, hypotheses in (
        (10, ["one", "", "", ""]),
        (20, ["one two three", "four", "", "zero"]),
        (30, ["", "", "", ""]),
    ):
        evaluation_records.save(sink.store, done, an_evaluation(hypotheses), run_id=sink.run.run_id)
    found = status(sink).best
    estimate = an_evaluation(["one two three", "four", "", "zero"]).scores.metrics["wer"]
    assert found == BestEvaluation(20, "wer", estimate, 3)
    evaluation_records.save(sink.store, 40, an_evaluation(metric="loss", loss=0.1), run_id=sink.run.run_id)
    assert status(sink).best == BestEvaluation(40, "loss", Estimate(0.1), 4)


def test_a_checkpoint_counts_as_exported_if_this_training_made_it(sink):
    sink.train(range(1, 41))
    assert (status(sink).steps_exported, status(sink).is_complete) == (None, False)
    sink.export(40)
    assert (status(sink).steps_exported, status(sink).is_complete) == (40, True)
    os.utime(sink.store.url + "/config.json", (time.time() - 3600,) * 2)
    assert status(sink).steps_exported is None  # that of the training before --restart


@pytest.mark.parametrize(("patience", "misses", "has_given_up"), [(2, 1, False), (2, 2, True), (None, 9, False)])
def test_a_training_is_done_once_its_patience_is_at_an_end(tmp_path, patience, misses, has_given_up):
    sink = Sink(tmp_path / "model", evaluation={"patience": patience})
    sink.commit(20, best=0.5, best_done=10, best_misses=misses)
    found = status(sink)
    assert (found.has_given_up, found.is_done, found.share) == (has_given_up, has_given_up, 0.5)


def test_it_turns_into_json(sink):
    sink.train(range(1, 4))
    found = json.loads(json.dumps(asdict(status(sink))))
    assert found["last_run"]["versions"]["raysp"] == raysp.__version__


def test_asking_writes_nothing(sink):
    sink.train(range(1, 4))
    before = [*sink.store.list()]
    status(sink)
    assert [*sink.store.list()] == before


def test_a_pipeline_with_this_sink_is_one_of_labels(sink, tmp_path):
    pipeline = a_pipeline(f"{tmp_path}/in/*.parquet", tmp_path / "model")
    with pytest.raises(PlanError, match="the sink of a training, without label shards"):
        raysp.status(sink.store.url, pipeline=pipeline)


@pytest.mark.parametrize("verb", [raysp.verify, raysp.retry])
def test_verbs_for_label_shards_say_that_it_has_none(sink, verb):
    with pytest.raises(PlanError, match="the sink of a training, without label shards; `raysp status` shows its prog"):
        verb(sink.store.url)


class TestGc:
    @pytest.fixture
    def left(self, sink) -> dict[str, str]:
        """Files that killed trainings left, with the reasons."""
        sink.train(range(1, 11))
        sink.export(10)
        sink.store.create(".raysp/report.html", b"")
        sink.store.create(".raysp/index/key/a.arrow", b"")
        evaluation_records.save(sink.store, 10, an_evaluation(), run_id=sink.run.run_id)
        files = {
            ".raysp/steps/11.ab/model.safetensors": "of a step that was not committed",
            ".raysp/steps/11.ab/optimizer.safetensors": "of a step that was not committed",
            ".raysp/tmp/x": "a temporary file of a process that has ended",
        }
        for path in files:
            sink.store.create(path, b"left")
        return files

    def test_it_removes_what_killed_trainings_left_and_nothing_else(self, sink, left):
        before = {entry.path for entry in sink.store.list()}
        dry = raysp.gc(sink.store.url, dry_run=True)
        assert {orphan.path: orphan.reason for orphan in dry.orphans} == left
        assert {entry.path for entry in sink.store.list()} == before
        found = raysp.gc(sink.store.url)
        assert (found.removed, found.orphans, found.num_bytes) == (True, dry.orphans, 12)
        after = {entry.path for entry in sink.store.list()}
        assert before - after == left.keys()
        assert {path.rpartition("/")[0] for path in after - before} == {".raysp/lease"}
        assert status(sink).steps == 10

    @pytest.mark.usefixtures("left")
    def test_it_is_refused_while_a_training_is_active(self, sink, monkeypatch):
        monkeypatch.setenv(lease.BEAT_VARIABLE, "0.02")
        with lease.held(sink.store):
            for dry_run in (True, False):
                with pytest.raises(PlanError, match="is running on this sink"):
                    raysp.gc(sink.store.url, dry_run=dry_run)
        assert raysp.gc(sink.store.url).orphans
