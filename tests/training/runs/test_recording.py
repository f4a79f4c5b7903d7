"""What whole trainings leave in their sink for people to look at: status and report."""

import pytest

import raysp
from raysp import Evaluation, Schedule, finetune
from tests.recipes import a_recipe, second_shard

pytestmark = pytest.mark.slow


def recipe(words, tiny, sink, **fields):
    schedule = Schedule(steps=6, learning_rate=1e-3)
    evaluation = Evaluation(second_shard(words), every=3, by=("speaker", "seconds"))
    return a_recipe(words, tiny, sink, **{"schedule": schedule, "evaluation": evaluation, **fields})


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
    assert raysp.gc(str(tmp_path / "out"), dry_run=True).orphans == ()


def test_a_training_that_patience_ends_is_complete(words, tiny, tmp_path):
    evaluation = Evaluation(second_shard(words), every=1, patience=1, best="wer")
    finetune(recipe(words, tiny, tmp_path / "out", evaluation=evaluation, schedule=Schedule(steps=50)))
    found = raysp.status(str(tmp_path / "out"))
    assert (found.has_given_up, found.is_complete, found.steps < 50) == (True, True, True)
