"""Committed steps: whole whenever they can be seen, never lost, the same whoever commits them."""

import hashlib
import json
import logging
from dataclasses import asdict
from pathlib import Path
from random import Random

import pytest

from raysp import RunError
from raysp.sink.run_record import RunEntry
from raysp.storage.store import LocalStore
from raysp.training.sink import committed_steps, training_record
from raysp.training.sink.committed_steps import Position
from tests.sink import simulated_store
from tests.sink.simulated_actors import ViolationError
from tests.sink.simulated_chances import Chances
from tests.sink.simulated_world import World

LAST = 6


@pytest.fixture
def store(tmp_path) -> LocalStore:
    return LocalStore(tmp_path / "model")


def content(name: str, done: int) -> bytes:
    """Make the state that training computes for a step: the same whoever computes it."""
    return f"{name} after {done} ".encode() * (done + 1)


def commit(store, done: int, **changes) -> committed_steps.CommittedStep:
    def writer(name: str) -> committed_steps.Writer:
        return lambda path: _write_bytes(path, content(name, done))

    facts = {"fingerprint": "f", "index": "i", "num_workers": 2, "metrics": {"loss": 1 / (done + 1)}} | changes
    writers = {name: writer(name) for name in ("model", "optimizer")}
    return committed_steps.commit(store, Position(done, done // 4, done % 4), writers, **facts)


def _write_bytes(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def state(store, step: committed_steps.CommittedStep) -> dict[str, bytes]:
    found = {}
    for name in step.files:
        with committed_steps.local_file(store, step, name) as path:
            found[name] = path.read_bytes()
    return found


def test_the_latest_step_is_read_back_as_it_was_committed(store):
    assert committed_steps.latest(store) is None
    commit(store, 9)
    made = commit(store, 10)
    found = committed_steps.latest(store)
    assert found == made
    assert (found.position, found.num_workers, found.metrics) == (Position(10, 2, 2), 2, {"loss": 1 / 11})
    assert state(store, found) == {name: content(name, 10) for name in ("model", "optimizer")}
    assert committed_steps.unnamed(store) == []


def test_a_step_that_is_committed_twice_keeps_the_first_commit(store):
    first = commit(store, 3)
    assert commit(store, 3, num_workers=4) == first
    assert committed_steps.latest(store) == first
    assert len(committed_steps.unnamed(store)) == 2


@pytest.mark.parametrize("damage", ["a missing file", "a shorter file", "an unreadable marker"])
def test_a_damaged_step_is_passed_over_for_the_one_before_it_with_a_warning(store, caplog, damage):
    before, last = commit(store, 3), commit(store, 4)
    path = last.files["model"].path if "file" in damage else ".raysp/steps/4.json"
    store.delete(path)
    if damage != "a missing file":
        store.create(path, b"{")
    with caplog.at_level(logging.WARNING):
        assert committed_steps.latest(store) == before
    assert path in caplog.text
    assert "going back to the committed step before it" in caplog.text


def test_a_file_that_was_changed_is_refused(store):
    step = commit(store, 3)
    file = step.files["model"]
    store.replace(file.path, b"x" * file.num_bytes)
    with (
        pytest.raises(RunError, match=r"3\..*/model was changed: .*Remove \.raysp/steps/3\.json to go on"),
        committed_steps.local_file(store, step, "model"),
    ):
        pass
    with (
        pytest.raises(RunError, match=r"step 3 has no file 'ema' \(found: model, optimizer\)"),
        committed_steps.local_file(store, step, "ema"),
    ):
        pass


@pytest.mark.parametrize("damage", ["missing", "shorter", "changed", "marker"])
def test_a_damaged_step_is_made_whole_when_it_is_trained_again(store, damage):
    """Also with the files of the same number of bytes."""
    made = commit(store, 4)
    file = made.files["model"]
    if damage == "missing":
        store.delete(file.path)
    else:
        path = ".raysp/steps/4.json" if damage == "marker" else file.path
        store.replace(path, b"x" * file.num_bytes if damage == "changed" else b"{")
    again = commit(store, 4)
    assert again == committed_steps.load(store, 4) == committed_steps.latest(store, checks=True)
    assert state(store, again) == {name: content(name, 4) for name in ("model", "optimizer")}


def test_content_that_was_changed_is_passed_over_where_it_is_checked(store, caplog):
    before, last = commit(store, 3), commit(store, 4)
    store.replace(last.files["model"].path, b"x" * last.files["model"].num_bytes)
    assert committed_steps.latest(store) == last
    assert committed_steps.latest(store, checks=True) == before
    assert "step 4 has missing, incomplete or changed files" in caplog.text


@pytest.mark.parametrize("theirs", [{"fingerprint": "g"}, {"index": "j"}, {"epoch": 3}])
def test_a_step_of_another_run_is_never_taken_for_the_own_one(store, theirs):
    facts = {"epoch": 2, **theirs}
    made = commit(store, 4, **facts)
    with pytest.raises(RunError, match=r"another run took over: step 4 was committed by it \(epoch"):
        commit(store, 4, epoch=2)
    assert committed_steps.load(store, 4) == made


def test_a_step_of_the_training_before_a_restart_does_not_count_and_is_replaced(store, caplog):
    """A suspended process may have committed it when it woke."""
    training_record.begin(store, RunEntry.now(), recipe={}, fingerprint="f", parts={}, epoch=2)
    late = commit(store, 4, epoch=1, fingerprint="g")
    assert committed_steps.latest(store) is None
    assert "is of a training before this one" in caplog.text
    assert committed_steps.newest(store, 3, until=9) == []
    mine = commit(store, 4, epoch=2)
    assert committed_steps.latest(store) == mine != late


def test_a_marker_that_cannot_be_parsed_is_removed_and_its_files_are_left_to_a_person(store):
    commit(store, 3)
    commit(store, 4)
    store.replace(".raysp/steps/3.json", b"{")
    assert committed_steps.unnamed(store) == []
    committed_steps.remove_others(store, set(), before=4)
    assert store.stat(".raysp/steps/3.json") is None
    assert len(committed_steps.unnamed(store)) == 2


def test_only_steps_before_the_own_one_are_removed_with_their_files(store):
    for done in range(5):
        commit(store, done)
    committed_steps.remove_others(store, {1}, before=3)
    assert sorted(step for step in range(5) if store.stat(f".raysp/steps/{step}.json")) == [1, 3, 4]
    assert len(list(store.list(".raysp/steps/"))) == 3 * 3
    assert committed_steps.unnamed(store) == []


def train(store, goal: int, kept: int = 2) -> None:
    """Go on from the last committed step, as a training does."""
    last = committed_steps.latest(store)
    done = last.position.done if last else 0
    if last:
        found = state(store, last)
        assert found == {name: content(name, done) for name in last.files}, f"state of step {done}"
    committed_steps.remove_others(store, range(done - kept + 1, done), before=done)
    while done < goal:
        done += 1
        commit(store, done)
        committed_steps.remove_others(store, range(done - kept + 1, done), before=done)
        assert committed_steps.latest(store).position.done >= done, "a committed step was lost"


class Killed(BaseException):
    """Kill of a process."""


class Dying:
    """A store whose process is killed at its n-th call, before or after the effect."""

    def __init__(self, store: LocalStore, calls: int, *, after: bool) -> None:
        self._store, self._left, self._after = store, calls, after

    def __getattr__(self, name):
        if name in ("url", "scratch"):
            return getattr(self._store, name)

        def call(*args, **kwargs):
            self._left -= 1
            if self._left == 0 and not self._after:
                raise Killed
            result = getattr(self._store, name)(*args, **kwargs)
            if self._left == 0:
                raise Killed
            return result

        return call


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True])
def test_a_training_killed_at_any_call_goes_on_from_a_whole_step(tmp_path, after):
    killed = 0
    for calls in range(1, 200):
        store = LocalStore(tmp_path / str(calls))
        try:
            train(Dying(store, calls, after=after), 4)
        except Killed:
            killed += 1
        else:
            break
        before = committed_steps.latest(store)
        train(store, 4)
        assert committed_steps.latest(store).position.done == 4 >= (before.position.done if before else 0)
        for path in committed_steps.unnamed(store):
            store.delete(path)
        assert len(list(store.list(".raysp/steps/"))) == 2 * 3
    assert killed > 30


def simulate(seed: int, folder: Path) -> World:
    """Let several processes train one sink, some of them long after others have taken over."""
    world = World(seed, folder)
    draw: Random = world.random
    world.chances = Chances(draw.choice([0, 0.02]), draw.choice([0, 0.02]), draw.choice([0, 0.1]))
    for number in range(draw.randint(1, 4)):
        world.spawn(f"training{number}", "plain", lambda actor: train(simulated_store.Store(world, actor), LAST))
        if draw.random() < 0.5:
            goal = world.steps + draw.randint(1, 60)
            world.run(until=lambda goal=goal: world.steps >= goal)
        else:
            world.run()
    world.run()
    world.chances = Chances()
    found = []

    def look(actor) -> None:
        store = simulated_store.Store(world, actor)
        train(store, LAST)
        last = committed_steps.latest(store)
        found.append((last.position.done, state(store, last)))

    world.spawn("last", "plain", look)
    world.run()
    if found != [(LAST, {name: content(name, LAST) for name in ("model", "optimizer")})]:
        raise ViolationError(f"found {found}")
    return world


def simulate_all(seeds: range, folder: Path) -> list[str]:
    return [line for seed in seeds for line in simulate(seed, folder).story]


@pytest.mark.slow
def test_no_history_of_several_trainings_of_one_sink_shows_a_step_that_is_not_whole(tmp_path):
    told = "\n".join(simulate_all(range(150), tmp_path))
    assert " crashes " in told
    assert "delete .raysp/steps/1.json" in told


def marking_a_step_before_its_files_are_written(monkeypatch):
    write = committed_steps._write

    def late(store, path, writer):
        file = committed_steps.StateFile(path, len(data := _written(store, writer)), hashlib.sha256(data).hexdigest())
        done = int(path.removeprefix(committed_steps.STEPS).partition(".")[0])
        step = committed_steps.CommittedStep(Position(done, 0, 0), "f", "i", 1, {"model": file})
        store.create(f"{committed_steps.STEPS}{done}.json", json.dumps(asdict(step)).encode())
        return write(store, path, writer)

    monkeypatch.setattr(committed_steps, "_write", late)


def _written(store, writer) -> bytes:
    with store.scratch() as scratch:
        writer(scratch)
        return scratch.read_bytes()


def removing_steps_of_a_process_that_took_over(monkeypatch):
    remove = committed_steps.remove_others
    monkeypatch.setattr(
        committed_steps, "remove_others", lambda store, kept, before: remove(store, {*kept, before}, before=1000)
    )


@pytest.mark.parametrize(
    "bug", [marking_a_step_before_its_files_are_written, removing_steps_of_a_process_that_took_over]
)
def test_histories_find_planted_bugs(tmp_path, monkeypatch, bug):
    bug(monkeypatch)
    with pytest.raises(ViolationError):
        simulate_all(range(150), tmp_path)
