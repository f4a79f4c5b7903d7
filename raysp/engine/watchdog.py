"""End this process over work that hangs, even where that holds the interpreter's lock.

Seconds are those in which it worked, or slept though nothing kept it from working: a pause of the process, the
container or the machine ends nothing. A small process beside it counts them (`audio.process_clock`).
"""

import contextlib
import faulthandler
import os
import subprocess
import sys
from collections.abc import Iterator

from raysp.audio import process_clock

_KEPT_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH")


class Watchdog:
    """This process's end of the process that watches it; started when it is needed first."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._seconds = 0.0

    def arm(self, seconds: float) -> None:
        """Have this process ended after so many seconds."""
        self._seconds = seconds
        self._say(seconds)

    def disarm(self) -> None:
        """Have it live on."""
        self._seconds = 0.0
        self._say(0.0)

    def touch(self) -> None:
        """Count from here on, if armed: what is waited for is bounded elsewhere."""
        if self._seconds:
            self._say(self._seconds)

    def _say(self, seconds: float) -> None:
        for _ in range(2):  # it may have been killed, then there is another one
            with contextlib.suppress(OSError):
                if self._process is None or self._process.poll() is not None:
                    self._process = _start()
                assert self._process.stdin is not None
                self._process.stdin.write(f"{seconds!r}\n".encode())
                return


def _start() -> "subprocess.Popen[bytes]":
    if not faulthandler.is_enabled():
        faulthandler.enable()  # so that an abort says where
    process = subprocess.Popen(
        [sys.executable, "-S", "-E", "-P", process_clock.__file__, str(os.getpid())],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        bufsize=0,
        env={name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ},
    )
    assert process.stdin is not None
    os.set_blocking(process.stdin.fileno(), False)  # it may be paused, which must not keep this one waiting
    return process


_watchdog = Watchdog()


def touch() -> None:
    """Begin the seconds of `watched` anew, from within: what is waited for has a limit of its own."""
    _watchdog.touch()


@contextlib.contextmanager
def watched(seconds: float) -> Iterator[None]:
    """End this process when what is done inside takes longer, in seconds in which it could work; 0: however long.

    One at a time in a process.
    """
    if not seconds:
        yield
        return
    _watchdog.arm(seconds)
    try:
        yield
    finally:
        _watchdog.disarm()
