"""Seconds in which another process could have worked, so that a pause is never taken for a hang.

Neither the time in which that process, this one or the whole machine was stopped is counted (SIGSTOP, a frozen
container, live migration), nor that in which it waited for a CPU beside other programs.

Run as `python process_clock.py PID` it reads numbers of seconds, a line each, and ends the process when so many have
passed since the last line; 0 lets it live on. It ends with its standard input, so with the process that started it.
It imports nothing but the standard library, to start fast and to stay small.
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
"""Of the agreed length that one look may count for: this process was not running for the rest."""
MAX_STEP_SECONDS, STEPS = 5.0, 20
"""Of the program: how long and how many, at least, the steps are after which it ends a process."""
DUMP_SECONDS = 10.0
"""That a process has to write where it was when it is told to abort, before it is killed."""


@dataclass(frozen=True, slots=True)
class Look:
    """A process as the kernel shows it."""

    states: str
    """One letter a thread."""
    cpu_seconds: float
    """Of all its threads since it started."""


def look(pid: int) -> Look | None:
    """Read the states of a process's threads and its CPU time; None where the system does not show them."""
    try:
        fields = _fields(f"/proc/{pid}/stat")
        states = fields[0]
        for thread in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208 - a Path a thread costs more than the look
            with contextlib.suppress(OSError, IndexError):  # it ended meanwhile
                states += _fields(f"/proc/{pid}/task/{thread}/stat")[0]
        return Look(states, (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND)
    except (OSError, IndexError, ValueError):
        return None


def _fields(path: str) -> list[str]:
    """Split what follows the name in parentheses, which may hold anything: state, ..., 12th and 13th the CPU ticks."""
    return Path(path).read_text(errors="replace").rpartition(")")[2].split()


class ProcessClock:
    """Count the seconds in which a process worked, or slept though nothing kept it from working.

    Args:
        pid: the process.
        step: seconds between two looks at it, which the caller keeps to; a longer gap counts as two steps.
    """

    def __init__(self, pid: int, step: float) -> None:
        self.pid = pid
        self.step = step
        self.seconds = 0.0
        self.stopped_seconds = 0.0
        """In which it was stopped by a signal while this process was running."""
        self._before = look(pid)

    def advance(self, elapsed: float) -> None:
        """Look again, so many seconds of the monotonic clock after the last look."""
        now, before = look(self.pid), self._before
        self._before = now
        elapsed = min(elapsed, MOST_STEPS * self.step)
        if now is None or before is None:
            self.seconds += elapsed
        elif now.states[0] in STOPPED:
            self.stopped_seconds += elapsed
        elif RUNNABLE in now.states:  # on a CPU, or waiting for one
            self.seconds += min(elapsed, max(0.0, now.cpu_seconds - before.cpu_seconds))
        else:
            self.seconds += elapsed


def watch(pid: int) -> None:
    """End a process by the numbers read from standard input; returns at its end."""
    limit = 0.0
    clock: ProcessClock | None = None
    unread = b""
    while True:
        step = min(MAX_STEP_SECONDS, limit / STEPS)
        start = time.monotonic()
        if select.select([0], [], [], step or None)[0]:
            if not (data := os.read(0, 4096)):
                return
            *lines, unread = (unread + data).split(b"\n")
            if lines:
                limit, clock = float(lines[-1]), None
        elif clock is None:  # most work has ended by now
            clock = ProcessClock(pid, step)
        else:
            clock.advance(time.monotonic() - start)
            if clock.seconds >= limit:
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
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for those who can tell what to do
    watch(int(sys.argv[1]))
