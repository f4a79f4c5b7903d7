"""Watchdog that ends this process when work hangs, even if that holds the global interpreter lock.

It counts seconds in which the process worked, or slept while it could have worked. A pause of the process, the
container or the machine does not count. A small separate process counts them (`process_clock`).
"""

import contextlib
import faulthandler
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator

from raysp.labelling.engine import process_clock

_KEPT_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH")


class Watchdog:
    """Client of the process that watches this one, which is started on first use and ends with this object."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._seconds = 0.0

    def limit(self, seconds: float) -> None:
        """End this process after this number of seconds; 0: cancel the limit."""
        self._seconds = seconds
        self._send(seconds)

    def touch(self) -> None:
        """Restart the count, if there is a limit: the current wait has its own limit."""
        if self._seconds:
            self._send(self._seconds)

    def _send(self, seconds: float) -> None:
        for _ in range(2):  # if it was killed, another one is started
            with contextlib.suppress(OSError):
                if self._process is None or self._process.poll() is not None:
                    self._process = _start()
                    assert self._process.stdin is not None
                    # subprocess keeps running processes and their pipes
                    weakref.finalize(self, self._process.stdin.close)
                assert self._process.stdin is not None
                self._process.stdin.write(f"{seconds!r}\n".encode())
                return


def _start() -> "subprocess.Popen[bytes]":
    if not faulthandler.is_enabled():
        faulthandler.enable()  # so that an abort prints a traceback
    process = subprocess.Popen(
        [sys.executable, "-S", "-E", "-P", process_clock.__file__, str(os.getpid())],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        bufsize=0,
        env={name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ},
    )
    assert process.stdin is not None
    os.set_blocking(process.stdin.fileno(), False)  # a paused watcher must not block this process
    return process


class _OfThread(threading.local):
    """The watchdog of each thread: one reads while another one labels."""

    def __init__(self) -> None:
        self.watchdog = Watchdog()


_of_thread = _OfThread()


def touch() -> None:
    """Restart the count of `watched` from within: the current wait has its own limit."""
    _of_thread.watchdog.touch()


@contextlib.contextmanager
def watched(seconds: float) -> Iterator[None]:
    """End this process if the block takes longer, in seconds in which the process could work; 0: no limit.

    Only one such block per thread may be active.
    """
    if not seconds:
        yield
        return
    watchdog = _of_thread.watchdog
    watchdog.limit(seconds)
    try:
        yield
    finally:
        watchdog.limit(0.0)
