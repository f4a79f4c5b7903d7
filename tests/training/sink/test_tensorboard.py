"""Event files of TensorBoard: their values, one file for each commit, and runs that go on from earlier steps."""

import logging
import struct

import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

from raysp import StoreError
from raysp.storage.store import LocalStore
from raysp.training.sink.tensorboard import TENSORBOARD, TensorBoardLog
from tests.evaluation.evaluated import an_evaluation
from tests.trainings import Sink


@pytest.fixture
def store(tmp_path) -> LocalStore:
    return LocalStore(tmp_path / "model")


def events(data: bytes) -> list[Event]:
    """Parse the records of an event file: length, its checksum, event, checksum."""
    found = []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        found.append(Event.FromString(data[12 : 12 + length]))
        data = data[16 + length :]
    return found


def files(store: LocalStore) -> dict[str, list[Event]]:
    return {entry.path.removeprefix(TENSORBOARD): events(store.read(entry.path)) for entry in store.list(TENSORBOARD)}


def values(found: list[Event]) -> dict[tuple[str, int], float]:
    return {(one.tag, event.step): one.simple_value for event in found for one in event.summary.value}


def starts(found: list[Event]) -> list[int]:
    """Return the steps from which TensorBoard forgets what came before."""
    return [event.step for event in found if event.session_log.status == SessionLog.START]


def test_steps_and_evaluations_become_scalars(store, tmp_path):
    log = TensorBoardLog(store, "r1")
    step, evaluation = Sink(tmp_path / "other").step(7, loss=2.5), an_evaluation(loss=None)
    log.log(7, step.tracked)
    log.log(7, evaluation.tracked)
    log.finish()
    [found] = files(store).values()
    wer = evaluation.scores.metrics["wer"]
    expected = {"train/loss": 2.5, "train/audio_per_second": 50.0, "train/waited": 0.05, "evaluation/wer_low": wer.low}
    shown = values(found)
    assert {name: shown[name, 7] for name in expected} == pytest.approx(expected)
    assert {name for name, _ in shown} == {
        *(
            f"train/{name}"
            for name in ("loss", "learning_rate", "gradient_norm", "audio_per_second", "waited", "epoch")
        ),
        *(f"evaluation/{name}{end}" for name in ("wer", "cer") for end in ("", "_low", "_high")),
    }
    assert all(event.wall_time > 0 for event in found)


def test_each_write_makes_a_file_in_the_order_of_the_steps_and_only_the_first_one_forgets(store):
    log = TensorBoardLog(store, "r1")
    for done in range(9, 12):
        log.log(done, {"x": done})
        log.write()
        log.write()  # nothing new
    found = files(store)
    assert list(found) == [f"events.out.tfevents.r1-{done:09}" for done in range(9, 12)]
    assert [values(one) for one in found.values()] == [{("x", done): done} for done in range(9, 12)]
    assert [starts(one) for one in found.values()] == [[9], [], []]


def test_a_run_that_goes_on_tells_tensorboard_to_forget_its_steps(store):
    for run_id, first in (("20260101", 1), ("20260102", 3)):
        log = TensorBoardLog(store, run_id)
        for done in range(first, first + 4):
            log.log(done, {"x": first})
        log.finish()
    last = list(files(store).values())[-1]
    assert (starts(last), sorted(values(last))) == ([3], [("x", done) for done in range(3, 7)])


def test_values_that_cannot_be_written_are_written_with_the_next_ones(store, monkeypatch, caplog):
    log = TensorBoardLog(store, "r1")
    log.log(1, {"x": 1})
    with monkeypatch.context() as patched:
        patched.setattr(LocalStore, "replace", _fail)
        with caplog.at_level(logging.WARNING):
            log.write()
    assert "events of TensorBoard are not written yet: no space" in caplog.text
    log.log(2, {"x": 2})
    log.write()
    [found] = files(store).values()
    assert (values(found), starts(found)) == ({("x", 1): 1, ("x", 2): 2}, [1])


def _fail(*_: object) -> None:
    raise StoreError("no space")
