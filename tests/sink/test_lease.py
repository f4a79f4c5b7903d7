import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from raysp import PlanError, RunError
from raysp.sink import layout, lease
from raysp.sink.lease import Holder, Lease, Process
from raysp.storage.store import LocalStore
from tests.sink import sinks

ELSEWHERE = Process("another-host", "boot", 7, "123")


class Clock:
    """A monotonic clock that only goes on while somebody sleeps; others may act meanwhile."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.at: list[tuple[float, object]] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        for when, act in [one for one in self.at if one[0] <= self.now]:
            self.at.remove((when, act))
            act()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def acquire(store, clock, name="me", process=ELSEWHERE) -> Lease:
    holder = Holder(name, process, "2026-01-01T00:00:00+00:00")
    return lease.acquire(store, clock=clock, sleep=clock.sleep, holder=holder)


def epochs(store) -> list[str]:
    return [entry.path for entry in store.list(layout.LEASE)]


def test_held_over_nothing_it_leaves_nothing(store):
    with pytest.raises(PlanError), lease.held(store):
        raise PlanError("refused")
    assert [*store.list()] == []
    if isinstance(store, LocalStore):
        assert not os.path.exists(store.url)


def test_a_living_owner_is_named_with_host_pid_and_the_age_of_its_beat(store, clock):
    first = acquire(store, clock, "alice")
    clock.at = [(1007, first.beat)]
    with pytest.raises(PlanError) as refused:
        acquire(store, clock, "bob")
    for part in ("alice", "'another-host'", "pid 7", "its heartbeat was seen 7.0 s after", "run again"):
        assert part in str(refused.value)
    assert epochs(store) == [layout.lease_path(1)]


@sinks.S3_IN_SOAK
def test_an_owner_without_a_heartbeat_for_sixty_seconds_has_ended(store, clock):
    acquire(store, clock, "alice")
    assert acquire(store, clock, "bob").epoch == 2
    assert 1060 <= clock.now < 1062


def test_a_process_of_this_machine_that_ended_or_whose_number_is_used_again_is_taken_over_at_once(store, clock):
    acquire(store, clock, "alice", replace(Process.here(), start="1"))
    dead = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    start = Path(f"/proc/{dead.pid}/stat").read_text().rpartition(")")[2].split()[19]
    process = replace(Process.here(), pid=dead.pid, start=start)
    acquire(store, clock, "bob", process)
    assert process.is_alive()
    dead.kill()
    dead.wait()
    assert acquire(store, clock, "carol").epoch == 3
    assert clock.now == 1000.0


@sinks.S3_IN_SOAK
@pytest.mark.parametrize("hours", [-1, 1])
def test_a_wall_clock_that_is_an_hour_off_steals_no_lease(store, clock, hours, monkeypatch):
    first = acquire(store, clock, "alice")
    wall = time.time
    monkeypatch.setattr(time, "time", lambda: wall() + hours * 3600)
    for path in epochs(store) if isinstance(store, LocalStore) else ():  # and the store's clock is off as well
        os.utime(f"{store.url}/{path}", (wall() - hours * 3600,) * 2)
    clock.at = [(1000 + 10 * n, first.beat) for n in range(1, 20)]
    for _ in range(5):
        with pytest.raises(PlanError, match="alice"):
            acquire(store, clock, "bob")


@sinks.S3_IN_SOAK
def test_an_owner_that_was_away_stops_when_it_sees_a_higher_epoch(store, clock):
    first = acquire(store, clock, "alice")
    clock.now += 100
    second = acquire(store, clock, "bob")
    clock.now += 100
    message = r"took over: bob on host 'another-host'.*holds the lease \(epoch 2, this run held 1\)"
    with pytest.raises(RunError, match=message):
        first.check()
    first.beat()
    first.release()
    second.check()
    clock.at = [(clock.now + 5, second.beat)]
    with pytest.raises(PlanError, match="bob"):
        acquire(store, clock, "carol")
