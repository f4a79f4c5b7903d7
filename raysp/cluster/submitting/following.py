"""Following a job: its log line by line until it ends, across lost connections."""

import time
from collections.abc import Callable

from raysp.cluster.submitting.head import Head, Job, UnreachableError
from raysp.errors import PlanError, RunError

PAUSE_SECONDS = 1.0
"""Time between two requests for the log."""
BYTES_PER_SECOND = 500_000
"""Rate of a log that is requested again and again, so that a long one takes no whole network."""
PATIENCE_SECONDS = 300.0
"""Time without an answer after which following ends; the job goes on."""
LOG_ATTEMPTS = 10
"""Requests for the log of a job that has ended: that of a machine that is gone cannot be read."""


def follow(
    head: Head,
    job_id: str,
    on_line: Callable[[str], None],
    *,
    pause_seconds: float = PAUSE_SECONDS,
    patience_seconds: float = PATIENCE_SECONDS,
) -> Job:
    """Emit the lines of a job's log as they appear, and return the job when it has ended.

    Raises:
        PlanError: there is no such job, or the head refuses the token.
        RunError: the head does not answer any more.
    """
    job, log = None, ""
    shown, failures, last_answer = 0, 0, time.monotonic()
    while True:
        try:
            job = head.job(job_id)
            last_answer = time.monotonic()
            log = head.get_job_logs(job_id)
        except UnreachableError as error:
            failures += 1
            if job is not None and job.is_over and failures >= LOG_ATTEMPTS:
                return job
            if time.monotonic() - last_answer > patience_seconds:
                raise RunError(f"{error} No answer for {patience_seconds:,.0f} s; the job may go on") from error
        except (PlanError, RuntimeError) as error:
            if job is None:
                raise
            raise RunError(f"{error}. Has the head been restarted? Submit again to continue") from error
        else:
            lines = log.split("\n")
            if not (job.is_over and lines[-1]):
                lines.pop()
            for line in lines[shown:]:
                on_line(line)
            shown, failures = max(shown, len(lines)), 0
            if job.is_over:
                return job
        time.sleep(pause_seconds + len(log) / BYTES_PER_SECOND)
