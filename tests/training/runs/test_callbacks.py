"""Callbacks: functions of a recipe that are called with every step, and those of pipelines/ for trackers."""

import logging
import struct
import sys
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

import raysp
from raysp import Evaluation, RunError, Schedule, finetune
from tests import kit
from tests.recipes import a_recipe, second_shard
from tests.training.trained import record_of, steps_of, stopping_after

pytestmark = pytest.mark.slow

PIPELINES = Path(__file__).parents[3] / "pipelines"
FUNCTIONS = """
calls = []


def keep(record):
    calls.append(dict(record))
    record.clear()


def fail(record):
    calls.append(record["done"])
    raise ValueError("no server")
"""


@pytest.fixture
def functions(tmp_path, monkeypatch) -> Any:
    """The module `users_callbacks` with its functions and what they were called with."""
    (tmp_path / "users_callbacks.py").write_text(FUNCTIONS)
    monkeypatch.syspath_prepend(str(tmp_path))
    import users_callbacks

    yield users_callbacks
    del sys.modules["users_callbacks"]


def recipe(words, tiny, sink, *callbacks, **fields):
    schedule, evaluation = Schedule(steps=5, learning_rate=1e-3), Evaluation(second_shard(words), every=4)
    place = raysp.Checkpoint(str(sink), every=2)
    return a_recipe(
        words, tiny, place, **{"schedule": schedule, "evaluation": evaluation, "callbacks": callbacks, **fields}
    )


def test_a_callback_gets_every_step_as_it_is_recorded_and_one_that_fails_is_named_once(
    words, tiny, tmp_path, functions, caplog
):
    sink = tmp_path / "out"
    with caplog.at_level(logging.WARNING):
        assert finetune(recipe(words, tiny, sink, "users_callbacks:fail", functions.keep)).is_done
    assert [record.getMessage() for record in caplog.records if "callback" in record.getMessage()] == [
        "callback 'users_callbacks:fail' failed, and the training goes on: users_callbacks.py:12: ValueError: no server"
    ]
    assert functions.calls[::2] == [1, 2, 3, 4, 5, 5]
    *steps, end = functions.calls[1::2]
    identity = {"sink": str(sink), "training": end["training"]}
    assert end == {"done": 5, "finished": True, "failed": False, **identity}
    assert [{name: step[name] for name in recorded} for step, recorded in zip(steps, steps_of(sink), strict=True)] == [
        *steps_of(sink)
    ]
    assert [name in step for step in steps for name in ("before", "evaluation")] == [
        *(True, False), *[False] * 4, *(False, True), *(False, True)
    ]  # fmt: skip
    assert steps[3]["evaluation"]["metric"] == "wer"
    assert all(step.items() >= identity.items() for step in steps)


def test_the_end_says_whether_an_error_ended_the_training(words, tiny, tmp_path, functions):
    schedule = Schedule(steps=9, learning_rate=1e30, clip=None, warmup=0.0)
    with pytest.raises(RunError, match="the loss is"):
        finetune(recipe(words, tiny, tmp_path / "out", functions.keep, evaluation=None, schedule=schedule))
    assert (functions.calls[-1]["finished"], functions.calls[-1]["failed"]) == (True, True)


def test_callbacks_may_change_and_get_nothing_of_a_try_out(words, tiny, tmp_path, functions):
    finetune(recipe(words, tiny, tmp_path / "out", evaluation=None), should_stop=stopping_after(2))
    finetune(recipe(words, tiny, tmp_path / "out", functions.keep, evaluation=None))
    assert [call["done"] for call in functions.calls] == [3, 4, 5, 5]
    functions.calls.clear()
    file = kit.pipeline_file(tmp_path / "tried.py", recipe(words, tiny, tmp_path / "new", functions.keep))
    ran = kit.run(["finetune", file, "--steps", 1, "--json"])
    assert (ran.code, functions.calls) == (0, []), ran.err


@pytest.fixture
def pipelines(tmp_path, monkeypatch) -> Path:
    """The folder of pipelines as the place of modules, and another folder in which the command runs."""
    monkeypatch.syspath_prepend(str(PIPELINES))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def interrupted(words, tiny, sink, callback: str) -> str:
    """Train three steps, lose the last of them, and train to the end; return the id of the training."""
    made = recipe(words, tiny, sink, callback)
    finetune(made, should_stop=stopping_after(3))
    (sink / ".raysp" / "steps" / "3.json").unlink()
    finetune(made)
    return sha256(f"{sink} {record_of(sink)['created']}".encode()).hexdigest()[:16]


def losses_of(sink: Path) -> dict[int, float]:
    return {step["done"]: step["loss"] for step in steps_of(sink)}


def test_tensorboard_shows_each_step_once_after_a_kill(words, tiny, pipelines):
    pytest.importorskip("tensorboardX")
    training = interrupted(words, tiny, pipelines / "out", "to_tensorboard:track")
    shown: dict[tuple[str, int], float] = {}
    for events in event_files(pipelines / "runs" / training):
        starts = [event.step for event in events if event.session_log.status]
        shown = {key: value for key, value in shown.items() if not starts or key[1] < starts[0]} | scalars(events)
    found = {done: value for (name, done), value in shown.items() if name == "train/loss"}
    assert found == pytest.approx(losses_of(pipelines / "out"))
    assert sorted(done for name, done in shown if name == "evaluation/wer") == [0, 4, 5]
    names = ("train/loss", "train/learning_rate", "train/norm", "evaluation/wer", "evaluation/cer")
    assert {name for name, _ in shown} == {*names}


def event_files(folder: Path) -> list[list[Any]]:
    """Return the events of TensorBoard of each file, in the order in which they were written."""
    files = sorted(folder.iterdir(), key=lambda file: file.stat().st_mtime_ns)
    return [_events(file.read_bytes()) for file in files]


def _events(data: bytes) -> list[Any]:
    """Parse the records of an event file: length, its checksum, event, checksum."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        found.append(Event.FromString(data[12 : 12 + length]))
        data = data[16 + length :]
    return found


def scalars(events: Iterable[Any]) -> dict[tuple[str, int], float]:
    """Return the values of events by tag and step."""
    return {(one.tag, event.step): one.simple_value for event in events for one in event.summary.value}
