"""Metrics of the last run of a training."""

from raysp.storage.store import LocalStore
from raysp.training.sink import step_metrics
from tests.trainings import Sink


def test_the_last_steps_are_those_of_the_last_run(tmp_path):
    sink = Sink(tmp_path)
    first, second = "20250101T000000000000Z-aaaaaa", "20250102T000000000000Z-bbbbbb"
    sink.train(range(1, 8), run_id=first)
    sink.train(range(5, 7), run_id=second, seconds=9.0)
    sink.train(range(7, 10), run_id=second, seconds=9.0)
    run_id, found = step_metrics.load_last_run(sink.store, 4)
    assert run_id == second
    assert [(step.done, step.seconds) for step in found] == [(6, 9.0), (7, 9.0), (8, 9.0), (9, 9.0)]
    assert [step.done for step in step_metrics.load_last_run(sink.store, 100)[1]] == [5, 6, 7, 8, 9]


def test_without_metrics_there_is_no_run(tmp_path):
    assert step_metrics.load_last_run(LocalStore(tmp_path), 4) == ("", [])
