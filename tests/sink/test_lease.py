import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from raysp import PlanError, RunError
from raysp.sink import lease
from raysp.sink.lease import Holder, Lease, Process
from raysp.storage.store import LocalStore

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


def test_a_living_owner_is_named_with_host_pid_and_the_age_of_its_beat(store, clock):
    first = acquire(store, clock, "alice")
    clock.at = [(1007, first.beat)]
    with pytest.raises(PlanError) as refused:
        acquire(store, clock, "bob")
    for part in ("alice", "'another-host'", "pid 7", "its heartbeat was seen 7.0 s after", "run again"):
        assert part in str(refused.value)


def test_an_owner_without_a_heartbeat_for_sixty_seconds_has_ended_and_stops_when_it_sees_the_next_one(tmp_path, clock):
    store = LocalStore(tmp_path)
    first = acquire(store, clock, "alice")
    second = acquire(store, clock, "bob")
    assert second.epoch == 2
    assert 1060 <= clock.now < 1062
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


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_wall_clock_that_is_an_hour_off_steals_no_lease(tmp_path, clock, hours):
    store = LocalStore(tmp_path)
    first = acquire(store, clock, "alice")

    def beat() -> None:
        first.beat()
        for file in (tmp_path / ".raysp" / "lease").iterdir():
            shifted = file.stat().st_mtime + hours * 3600
            os.utime(file, (shifted, shifted))

    clock.at = [(1000 + 10 * n, beat) for n in range(1, 20)]
    for _ in range(5):
        with pytest.raises(PlanError, match="alice"):
            acquire(store, clock, "bob")
