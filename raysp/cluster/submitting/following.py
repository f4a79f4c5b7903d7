"""Following a job: its log line by line until it ends, across lost connections."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol

from raysp.cluster.submitting.head import LOST, UnreachableError
from raysp.cluster.submitting.job_entries import Job
from raysp.errors import PlanError, RunError

SILENCE_SECONDS = 60.0
"""Time without a line after which the log is requested again: a dead connection looks the same."""
PATIENCE_SECONDS = 300.0
"""Time without an answer after which following ends; the job goes on."""
RETRY_SECONDS = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Pauses between attempts; the last one repeats."""


class Followed(Protocol):
    """The part of `Head` that following uses."""

    def job(self, job_id: str) -> Job:
        """Return the job."""

    def log(self, job_id: str) -> AsyncIterator[str]:
        """Return the parts of the log from its beginning."""


@dataclass
class Lines:
    """The lines of a log that is received in parts, possibly several times from its beginning."""

    emit: Callable[[str], None]
    seen: int = 0
    """Characters received so far, in whichever connection."""
    _skip: int = 0
    _rest: str = field(default="")

    def begin(self) -> None:
        """Begin a connection: characters received before are skipped."""
        self._skip = self.seen

    def add(self, text: str) -> None:
        """Emit the lines that a part completes."""
        fresh = text[self._skip :]
        self._skip = max(0, self._skip - len(text))
        self.seen += len(fresh)
        *lines, self._rest = (self._rest + fresh).split("\n")
        for line in lines:
            self.emit(line)

    def end(self) -> None:
        """Emit the last line if no line break ends it."""
        if self._rest:
            self.emit(self._rest)
        self._rest = ""


def follow(
    head: Followed,
    job_id: str,
    on_line: Callable[[str], None],
    *,
    silence_seconds: float = SILENCE_SECONDS,
    patience_seconds: float = PATIENCE_SECONDS,
    retry_seconds: tuple[float, ...] = RETRY_SECONDS,
) -> Job:
    """Emit the lines of a job's log as they appear, and return the job when it has ended.

    Raises:
        PlanError: there is no such job, or the head refuses the token.
        RunError: the head does not answer any more.
    """
    lines = Lines(on_line)
    last_answer, failures, was_over = time.monotonic(), 0, False
    while True:
        seen = lines.seen
        ending = asyncio.run(_receive(head.log(job_id), lines, silence_seconds))
        try:
            job = head.job(job_id)
        except UnreachableError as error:
            if time.monotonic() - last_answer > patience_seconds:
                raise RunError(f"{error} No answer for {patience_seconds:,.0f} s; the job may go on") from error
        except PlanError as error:
            if not lines.seen:
                raise
            raise RunError(f"{error}. Has the head been restarted? Submit again to continue") from error
        else:
            last_answer = time.monotonic()
            # Ray may end a log before its last lines if the job ends meanwhile, so it is read again afterwards. The log
            # of a machine that is gone cannot be read: a few attempts, then the job alone is reported.
            if was_over and (ending == "whole" or failures >= len(retry_seconds)):
                lines.end()
                return job
            is_new, was_over = job.is_over and not was_over, job.is_over
            if is_new:
                continue
        failures = 0 if ending != "lost" or lines.seen > seen else failures + 1
        time.sleep(retry_seconds[min(failures, len(retry_seconds)) - 1] if failures else retry_seconds[0])


async def _receive(log: AsyncIterator[str], lines: Lines, silence_seconds: float) -> Literal["whole", "silent", "lost"]:
    """Receive a log until it ends, and return the way it ended: in order, by a long silence, or a lost connection."""
    lines.begin()
    parts = aiter(log)
    try:
        while True:
            async with asyncio.timeout(silence_seconds):  # `wait_for` of Python 3.11 can lose a Ctrl-C
                part = await anext(parts)
            lines.add(part)
    except StopAsyncIteration:
        return "whole"
    except TimeoutError:
        return "silent"
    except LOST:
        return "lost"
