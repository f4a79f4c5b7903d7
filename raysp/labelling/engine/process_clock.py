"""Clock of the seconds in which another process could have worked, so that a pause does not count as a hang.

The clock excludes time in which that process, this one or the whole machine was stopped (SIGSTOP, a frozen container,
live migration), and time in which the process waited for a CPU.

Run as `python process_clock.py PID`, it reads a number of seconds per line from standard input, and ends the process
when that many have passed since the last line; 0 disables the limit. It exits at the end of its standard input, hence
with its parent. It imports the standard library only, for a fast start and a small footprint.
"""

import contextlib
import os
import select
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
STOPPED, RUNNABLE = "Tt", "R"
MOST_STEPS = 2
"""Maximum steps that one look may count. In any longer time this process was not running."""
MAX_STEP_SECONDS, STEPS = 5.0, 20
"""Maximum length of a step of the program, and minimum number of steps before it ends a process."""
DUMP_SECONDS = 10.0
"""Time for a process to write its traceback after SIGABRT, before SIGKILL."""


@dataclass(frozen=True, slots=True)
class ProcessTimes:
    """State of a process in /proc."""

    states: str
    """One letter per thread, the process first."""
    cpu_seconds: float
    """CPU time of all its threads since it started."""


def read_times(pid: int) -> ProcessTimes | None:
    """Read the states of a process's threads and its CPU time; None if the system does not provide them."""
    try:
        fields = _fields(f"/proc/{pid}/stat")
        states = fields[0]
        for thread in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208 - a Path per thread costs more than the reading
            with contextlib.suppress(OSError, IndexError):  # the thread has ended
                states += _fields(f"/proc/{pid}/task/{thread}/stat")[0]
        return ProcessTimes(states, (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND)
    except (OSError, IndexError, ValueError):
        return None


def _fields(path: str) -> list[str]:
    """Return the fields after the name in parentheses: the first is the state, the 12th and 13th are CPU ticks."""
    return Path(path).read_text(errors="replace").rpartition(")")[2].split()


def worked_seconds(before: ProcessTimes | None, now: ProcessTimes | None, elapsed: float) -> float:
    """Return for how many of the seconds between two readings a process worked, or slept while it could have worked."""
    if now is None or before is None:
        return elapsed
    if RUNNABLE in now.states:  # on a CPU, or waiting for one
        return min(elapsed, max(0.0, now.cpu_seconds - before.cpu_seconds))
    return 0.0 if now.states[0] in STOPPED else elapsed


def watch(pid: int) -> None:
    """End a process by the limits read from standard input. Returns after that, or at the end of the input."""
    limit, unread = 0.0, b""
    seconds: float | None = None
    before: ProcessTimes | None = None
    while True:
        step = min(MAX_STEP_SECONDS, limit / STEPS)
        start = time.monotonic()
        if select.select([0], [], [], step or None)[0]:
            if not (data := os.read(0, 4096)):
                return
            *lines, unread = (unread + data).split(b"\n")
            if lines:
                limit, seconds = float(lines[-1]), None
        elif seconds is None:  # counted only after one step, when most work has ended
            seconds, before = 0.0, read_times(pid)
        else:
            now = read_times(pid)
            seconds += worked_seconds(before, now, min(time.monotonic() - start, MOST_STEPS * step))
            before = now
            if seconds >= limit:
                _end(pid)
                return


def _end(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGABRT)
        while select.select([0], [], [], DUMP_SECONDS)[0]:
            if not os.read(0, 4096):
                return
        os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is handled by the parent process
    watch(int(sys.argv[1]))
