"""What whole trainings leave in their sink for people to look at: status, report, event files, trackers."""

import sys
from pathlib import Path
from unittest.mock import MagicMock

import pytest

import raysp
from raysp import Evaluation, Schedule, finetune
from tests.recipes import a_recipe, second_shard

pytestmark = pytest.mark.slow


def recipe(words, tiny, sink, **fields):
    schedule = Schedule(steps=6, learning_rate=1e-3)
    evaluation = Evaluation(second_shard(words), every=3, by=("speaker", "seconds"))
    return a_recipe(words, tiny, sink, **{"schedule": schedule, "evaluation": evaluation, **fields})


def first_steps_of_events(sink: Path) -> set[str]:
    return {file.name.rpartition("-")[2] for file in (sink / ".raysp" / "tensorboard").iterdir()}


def test_a_stopped_training_and_its_end_are_shown(words, tiny, tmp_path):
    given, asked = recipe(words, tiny, tmp_path / "out"), iter(range(100))
    finetune(given, should_stop=lambda: next(asked) >= 3)
    stopped = raysp.status(str(tmp_path / "out"))
    assert (stopped.steps, stopped.share, stopped.is_complete, stopped.best.steps) == (4, 4 / 6, False, 3)
    report = tmp_path / "out" / ".raysp" / "report.html"
    assert "Evaluation at step 3" in report.read_text()
    finetune(given)
    done = raysp.status(str(tmp_path / "out"))
    assert (done.steps, done.is_complete, done.best.evaluations) == (6, True, 2)
    assert done.steps_exported == done.best.steps
    assert f"Evaluation at step {done.best.steps}" in (page := report.read_text())
    assert all(text in page for text in ("Training is done", "By speaker", "By duration", "Worst rows", "WER", "CER"))
    assert {"000000000", "000000005"} <= first_steps_of_events(tmp_path / "out")  # of both runs
    assert raysp.gc(str(tmp_path / "out"), dry_run=True).orphans == ()


def test_a_training_that_patience_ends_is_complete(words, tiny, tmp_path):
    evaluation = Evaluation(second_shard(words), every=1, patience=1, best="wer")
    finetune(recipe(words, tiny, tmp_path / "out", evaluation=evaluation, schedule=Schedule(steps=50)))
    found = raysp.status(str(tmp_path / "out"))
    assert (found.has_given_up, found.is_complete, found.steps < 50) == (True, True, True)


def test_trackers_are_told_of_every_step(words, tiny, tmp_path, monkeypatch):
    package = MagicMock(run=None)
    monkeypatch.setitem(sys.modules, "wandb", package)
    finetune(recipe(words, tiny, tmp_path / "out", trackers=["wandb"]))
    run = package.init.return_value
    assert [call.kwargs["step"] for call in run.log.call_args_list] == [0, 1, 2, 3, 4, 5, 6]
    assert ["evaluation/wer" in call.args[0] for call in run.log.call_args_list] == [True, *[False, False, True] * 2]
    assert run.finish.call_count == 1
