"""Event files of TensorBoard: their values, one file for each commit, and runs that go on from earlier steps."""

import logging
from pathlib import Path

import pytest
from tensorboardX.proto.event_pb2 import SessionLog

from raysp import Evaluation, Schedule, finetune
from tests.recipes import a_recipe, second_shard
from tests.training.trained import evaluations_of, events_of, scalars, steps_of, stopping_after

pytestmark = pytest.mark.slow


def recipe(words, tiny, sink, **fields):
    schedule = Schedule(steps=7, learning_rate=1e-3)
    return a_recipe(words, tiny, sink, schedule=schedule, **fields)


def files(sink: Path) -> dict[str, list[object]]:
    """Return the events by the ends of the names of their files, in order."""
    return {name.rpartition("-")[2]: events for name, events in events_of(sink).items()}


def starts(events: list) -> list[int]:
    """Return the steps from which TensorBoard forgets what came before."""
    return [event.step for event in events if event.session_log.status == SessionLog.START]


def losses(events: list) -> list[int]:
    """Return the steps whose losses a file has."""
    return [step for name, step in scalars(events) if name == "train/loss"]


@pytest.fixture(scope="module")
def trained(words, tiny, tmp_path_factory) -> Path:
    """A training that was stopped after three of its seven steps."""
    sink = tmp_path_factory.mktemp("trained") / "out"
    made = recipe(words, tiny, sink, evaluation=Evaluation(second_shard(words), every=4))
    finetune(made, should_stop=stopping_after(3))
    finetune(made)
    return sink


def test_steps_and_evaluations_become_scalars(trained):
    events = [event for found in files(trained).values() for event in found]
    shown, steps, evaluations = scalars(events), steps_of(trained), evaluations_of(trained)
    for step in steps:
        expected = {
            "train/loss": step["loss"],
            "train/learning_rate": step["learning_rate"],
            "train/gradient_norm": step["norm"],
            "train/audio_per_second": step["audio_seconds"] / step["seconds"],
            "train/waited": step["waited"] / step["seconds"],
            "train/epoch": step["epoch"],
        }
        assert {name: shown[name, step["done"]] for name in expected} == pytest.approx(expected)
    assert [*evaluations] == [0, 4, 7]
    for done, one in evaluations.items():
        metrics = one["scores"]["metrics"]
        expected = {
            "evaluation/wer": metrics["wer"]["value"],
            "evaluation/wer_low": metrics["wer"]["low"],
            "evaluation/cer_high": metrics["cer"]["high"],
            "evaluation/loss": one["loss"],
        }
        assert {name: shown[name, done] for name in expected} == pytest.approx(expected)
    of_steps = ("loss", "learning_rate", "gradient_norm", "audio_per_second", "waited", "epoch")
    of_evaluations = (f"{name}{end}" for name in ("wer", "cer") for end in ("", "_low", "_high"))
    names = {*(f"train/{name}" for name in of_steps), *(f"evaluation/{name}" for name in (*of_evaluations, "loss"))}
    assert {name for name, _ in shown} == names
    assert all(event.wall_time > 0 for event in events)


def test_each_commit_makes_a_file_and_only_the_first_one_of_a_run_forgets_its_steps_of_earlier_runs(trained):
    found = files(trained)
    assert [*found] == ["000000000", "000000003", "000000004", "000000005", "000000007"]
    assert [losses(events) for events in found.values()] == [[1, 2], [3], [4], [5, 6], [7]]
    first_run, second_run = [*found.values()][:2], [*found.values()][2:]
    assert [starts(events) for events in first_run] == [[0], []]
    assert [starts(events) for events in second_run] == [[4], [], []]


def test_values_that_cannot_be_written_are_written_with_the_next_ones(words, tiny, tmp_path, caplog):
    folder = tmp_path / "out" / ".raysp" / "tensorboard"

    def put(_: object) -> None:
        folder.write_text("in the place of the folder")

    def remove(progress):
        if progress.done == 7:
            folder.unlink()

    with caplog.at_level(logging.WARNING):
        finetune(recipe(words, tiny, tmp_path / "out"), on_plan=put, on_progress=remove)
    assert "events of TensorBoard are not written yet: " in caplog.text
    events = [event for events in files(tmp_path / "out").values() for event in events]
    assert (losses(events), starts(events)) == ([1, 2, 3, 4, 5, 6, 7], [1])
