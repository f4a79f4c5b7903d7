"""A sink that is watched: until its runs end, are killed, or are lost; by a clock of the tests."""

from collections.abc import Callable

import pytest

from raysp import PlanError
from raysp.sink import lease, run_record
from raysp.sink.lease import STALE_BEATS, Holder, Process, Running, seconds_between_beats
from raysp.sink.run_record import RunEntry
from raysp.storage.store import LocalStore
from raysp.storage.stores import open_store
from raysp.training.reading.training_status import TrainingStatus
from raysp.verbs.watching import Watch
from raysp.work import SinkRequest
from tests.trainings import Sink

AWAY = Process("another machine", "x", 1, "1")
LOST_SECONDS = STALE_BEATS * seconds_between_beats()


class Clock:
    """A clock that only sleeping moves; what happens meanwhile is given by the number of the sleep."""

    def __init__(self, happens: Callable[[int], object] = lambda _: None) -> None:
        self.now = 100.0
        self.sleeps = 0
        self._happens = happens

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.sleeps += 1
        assert self.sleeps < 100, "it never ends"
        self._happens(self.sleeps)


@pytest.fixture
def store(tmp_path) -> LocalStore:
    store = LocalStore(tmp_path / "labels")
    run = RunEntry.now(command=["raysp", "run"])
    run_record.begin(store, run_record.RunRecord(run.started, {}, "f00d", {}, {}, (run,)))
    return store


def watch(store: LocalStore, clock: Clock) -> Watch:
    return Watch(store, clock, clock.sleep)


def running(states: Watch) -> list[Running]:
    return [found.running for found in states]


def test_without_an_active_run_there_is_one_state(store):
    states = watch(store, clock := Clock())
    assert running(states) == [Running.NO]
    assert (clock.sleeps, states.is_lost) == (0, False)


def test_states_follow_until_the_run_has_released_its_lease(store):
    held = lease.acquire(store, holder=Holder.now())
    clock = Clock(lambda number: held.release() if number == 3 else None)
    assert running(watch(store, clock)) == [Running.YES] * 3 + [Running.NO]
    assert clock.now == 100.0 + 3 * 5.0


def test_the_end_of_a_killed_run_is_seen(store):
    held = lease.acquire(store, holder=Holder.now())
    here = Process.here()
    dead = Holder(held.owner, Process(here.host, here.boot, here.pid, "1"), "2026-01-01")
    clock = Clock(lambda _: store.replace(".raysp/lease/00000001", lease._encode(dead)))
    assert running(watch(store, clock)) == [Running.YES, Running.KILLED]


def test_a_run_on_another_machine_is_watched_as_long_as_its_heart_beats(store):
    held = lease.acquire(store, holder=Holder("ann-1", AWAY, "2026-01-01"))
    clock = Clock(lambda number: held.release() if number == 60 else held.beat())
    states = watch(store, clock)
    assert running(states) == [Running.ELSEWHERE] * 60 + [Running.NO]
    assert not states.is_lost


def test_a_run_without_a_heartbeat_is_lost_after_a_minute_of_ones_own_clock(store):
    held = lease.acquire(store, holder=Holder("ann-1", AWAY, "2026-01-01"))
    clock = Clock(lambda number: held.beat() if number == 2 else None)
    states = watch(store, clock)
    assert set(running(states)) == {Running.ELSEWHERE}
    assert states.is_lost
    assert clock.now == 100.0 + 2 * 5.0 + LOST_SECONDS


def test_a_training_is_watched_too(tmp_path):
    sink = Sink(tmp_path / "model")
    store = open_store(sink.url)
    held = lease.acquire(store, holder=Holder.now())

    def happens(number: int) -> None:
        sink.train(range(number, number + 1))
        if number == 2:
            held.release()

    found = list(watch(store, Clock(happens)))
    assert all(isinstance(one, TrainingStatus) for one in found)
    assert [one.steps for one in found] == [0, 1, 2]


def test_sinks_are_opened_as_by_status(tmp_path, store):
    Sink(tmp_path / "model")
    for name in ("labels", "model"):
        assert Watch.open(SinkRequest(str(tmp_path / name))).store.url == str(tmp_path / name)
    with pytest.raises(PlanError, match="not a sink of raysp"):
        Watch.open(SinkRequest(str(tmp_path / "nowhere")))
