"""Committed steps: whole whenever they can be seen, never lost, the same whoever commits them."""

import dataclasses
from pathlib import Path

import pytest

from raysp import RunError
from raysp.sink import lease
from raysp.sink.fencing import FencedStore
from raysp.storage.store import LocalStore
from raysp.training.sink import committed_steps
from raysp.training.sink.committed_steps import CommittedStep, Position


@pytest.fixture
def store(tmp_path) -> FencedStore:
    return FencedStore(LocalStore(tmp_path / "model"), 1)


def content(name: str, done: int) -> bytes:
    """Make the state that training computes for a step: the same whoever computes it."""
    return f"{name} after {done} ".encode() * (done + 1)


def commit(store, done: int, **changes) -> CommittedStep:
    def writer(name: str) -> committed_steps.Writer:
        return lambda path: _write_bytes(path, content(name, done))

    fields = {"fingerprint": "f", "index": "i", "num_workers": 2, "metrics": {"loss": 1 / (done + 1)}} | changes
    step = CommittedStep(Position(done, done // 4, done % 4), files={}, **fields)
    return committed_steps.commit(store, step, {name: writer(name) for name in ("model", "optimizer")})


def unnamed(store) -> list[str]:
    """Return the files that no marker names."""
    return [orphan.path for orphan in committed_steps.leftovers(store)]


def _write_bytes(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def state(store, step: CommittedStep) -> dict[str, bytes]:
    found = {}
    for name in step.files:
        with committed_steps.local_file(store, step, name) as path:
            found[name] = path.read_bytes()
    return found


def test_a_step_that_is_committed_twice_keeps_the_first_commit(store):
    first = commit(store, 3)
    assert commit(store, 3, num_workers=4) == first
    assert committed_steps.latest(store) == first
    assert len(unnamed(store)) == 2


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


def test_a_run_ends_at_the_marker_of_a_run_that_took_over(tmp_path):
    folder = LocalStore(tmp_path / "model")
    mine = FencedStore(folder, lease.acquire(folder, holder=released()).epoch)
    theirs = FencedStore(folder, lease.acquire(folder).epoch)
    step = commit(theirs, 4)
    with pytest.raises(RunError, match=r"another run took over: .* \(epoch 2, this run held 1\)"):
        commit(mine, 4)
    assert (committed_steps.load(folder, 4), step.epoch) == (step, 2)


def released() -> lease.Holder:
    return dataclasses.replace(lease.Holder.now(), released=True)


@pytest.mark.parametrize("other", [{"fingerprint": "g"}, {"index": "j"}])
def test_a_step_of_another_recipe_or_corpus_is_never_taken_for_the_own_one(store, other):
    commit(store, 4, **other)
    step = commit(store, 4)
    assert (step.fingerprint, step.index) == ("f", "i")
    assert committed_steps.load(store, 4) == step


def test_a_marker_that_a_suspended_process_adds_after_a_restart_does_not_count_and_is_replaced(store, caplog):
    """The restart removed its files."""
    late = commit(store, 4)
    for file in late.files.values():
        store.delete(file.path)
    assert committed_steps.latest(store) is None
    step = commit(store, 4)
    assert committed_steps.latest(store) == step != late
    assert "4.json was damaged or of an earlier training; it was replaced" in caplog.text


def train(store, goal: int) -> None:
    """Go on from the last committed step, as a training does."""
    last = committed_steps.latest(store)
    done = last.position.done if last else 0
    if last:
        found = state(store, last)
        assert found == {name: content(name, done) for name in last.files}, f"state of step {done}"
    committed_steps.remove_earlier(store, done)
    while done < goal:
        done += 1
        commit(store, done)
        committed_steps.remove_earlier(store, done)
        assert committed_steps.latest(store).position.done >= done, "a committed step was lost"


class Killed(BaseException):
    """Kill of a process."""


class Dying:
    """A store whose process is killed at its n-th call, before or after the effect."""

    def __init__(self, store: LocalStore, calls: int, *, after: bool) -> None:
        self._store, self._left, self._after = store, calls, after

    def __getattr__(self, name):
        if name in ("url", "scratch", "epoch"):
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
        store = FencedStore(LocalStore(tmp_path / str(calls)), 1)
        try:
            train(Dying(store, calls, after=after), 4)
        except Killed:
            killed += 1
        else:
            break
        before = committed_steps.latest(store)
        train(store, 4)
        assert committed_steps.latest(store).position.done == 4 >= (before.position.done if before else 0)
        for path in unnamed(store):
            store.delete(path)
        assert len(list(store.list(".raysp/steps/"))) == 2 * 3
    assert killed > 30
