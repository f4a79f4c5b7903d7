"""Seconds in which a process could have worked: pauses and waits for a CPU are none."""

import subprocess
import sys
import time

import pytest

from raysp.labelling.engine.process_clock import ProcessClock, read_times


@pytest.fixture
def started():
    """Start `python -c` with some code, and end it with the test."""
    running: list[subprocess.Popen] = []

    def start(code: str) -> int:
        process = subprocess.Popen(
            [sys.executable, "-c", f"print(flush=True)\n{code}"], stdout=subprocess.PIPE, bufsize=0
        )
        running.append(process)
        process.stdout.readline()
        return process.pid

    yield start
    for process in running:
        process.kill()
        process.communicate()


@pytest.mark.lengthy
def test_a_process_that_computes_uses_its_cpu_time(started):
    pid = started("while True: pass")
    clock = ProcessClock(pid, 100.0)
    before = read_times(pid).cpu_seconds
    while read_times(pid).cpu_seconds < before + 0.2:
        time.sleep(0.01)
    clock.advance(100.0)  # as on a machine that is busy with other things
    assert 0.2 <= clock.seconds < 50


def test_where_the_system_shows_nothing_time_counts(monkeypatch):
    assert read_times(2**22 + 1) is None
    clock = ProcessClock(2**22 + 1, 1.0)
    clock.advance(1.0)
    assert clock.seconds == 1.0
