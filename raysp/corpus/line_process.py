"""A process that does part of the work of this one: it answers requests, a line each, in their order."""

import logging
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from raysp.words import ending

logger = logging.getLogger(__name__)


class LineProcess:
    """A process that reads values from its standard input, then requests, and writes an answer to each.

    It inherits the environment, and gets everything else by a pipe, with references to the environment unresolved. It
    must end with its standard input, hence with this process.

    Args:
        main: its main module.
        values: values that it reads first, pickled.
        work: predicate for the log, such as "reads footers".
    """

    def __init__(self, main: str, values: bytes, work: str) -> None:
        package = str(Path(__file__).parents[2])
        path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
        self._work = work
        self._has_ended = False
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", main],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": path},
            start_new_session=True,  # signals of a terminal are for this process, which ends the other
        )
        self.send(values)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()

    def send(self, request: bytes) -> None:
        """Send a request, which ends with its only line break; the process reads it at once."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended, which `receive` finds
            self._process.stdin.write(request)
            self._process.stdin.flush()

    def receive(self) -> bytes | None:
        """Wait for the answer to the first request without one; None if the process has ended."""
        assert self._process.stdout is not None
        line = b"" if self._has_ended else self._process.stdout.readline()
        # An answer without its line break was cut off by the end of the process.
        if not line.endswith(b"\n"):
            self._end()
            return None
        return line

    def _end(self) -> None:
        if not self._has_ended:
            self._has_ended = True
            code = self._process.wait()
            ended = ending(code)
            logger.warning("a process that %s ended with %s; this process does the rest for it", self._work, ended)
