"""Stopping a job: the run ends in order, and submitting again continues it."""

import time

from raysp.cluster.submitting.head import Head
from raysp.cluster.submitting.job_entries import Job
from raysp.cluster.submitting.submission import STOP_SECONDS
from raysp.errors import RunError

POLL_SECONDS = 0.5
SPARE_SECONDS = 30.0
"""Time that Ray has to report the end of a job that it has killed."""


def stop(head: Head, job_id: str, *, timeout_seconds: float = STOP_SECONDS + SPARE_SECONDS) -> Job:
    """Stop a job, wait until it has ended, and return it; a job that has ended is returned unchanged.

    Raises:
        PlanError: there is no such job of raysp.
        RunError: it has not ended in time.
    """
    if (job := head.job(job_id)).is_over:
        return job
    head.request_stop(job_id)
    deadline = time.monotonic() + timeout_seconds
    while not (job := head.job(job_id)).is_over:
        if time.monotonic() > deadline:
            raise RunError(f"the job {job_id} has not ended within {timeout_seconds:,.0f} s; `raysp jobs` shows it")
        time.sleep(POLL_SECONDS)
    return job
