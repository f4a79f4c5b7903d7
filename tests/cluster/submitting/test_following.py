"""Following the log of a job across lost connections.

The pauses and the patience are given to the inside: through the command they are seconds and minutes.
"""

import pytest

from raysp import RunError
from raysp.cluster.submitting.head import Head, Job, follow
from tests.cluster.submitting.fake_head import LOST, FakeHead


def followed(head: FakeHead, **options) -> tuple[Job, list[str]]:
    lines: list[str] = []
    return follow(Head(head.url), "raysp-a", lines.append, pause_seconds=0.01, **options), lines


def test_lines_are_emitted_once_wherever_a_request_cuts_the_log_or_a_connection_is_lost(head: FakeHead):
    head.add("raysp-a")
    log = "first\n\nsecond\nthird"
    away = [lambda: head.failing.extend([502, 503])]
    end = [log, lambda: head.end("raysp-a", "FAILED", 143)]
    head.logs = [["first\n\nsec", LOST], [LOST], away, *([log[:cut]] for cut in range(len(log) + 1)), end]
    head.logs.append([f"{log}\nraysp: stopped\n"])  # the last lines are there once the job has ended
    job, lines = followed(head)
    assert (job.status, job.exit_code) == ("failed", 143)
    assert lines == ["first", "", "second", "third", "raysp: stopped"]
    head.logs = [[LOST]]  # as of a node that failed
    assert followed(head)[1] == []


@pytest.mark.parametrize(
    ("happens", "message"),
    [
        (lambda head: head.failing.extend([503] * 1000), r"HTTP 503.* No answer for 0 s; the job may go on"),
        (
            lambda head: head.jobs.clear(),
            r"no job of raysp named 'raysp-a'.*Has the head been restarted\? Submit again",
        ),
    ],
)
def test_a_head_that_stays_away_or_forgot_the_job_ends_the_following(head: FakeHead, happens, message):
    head.add("raysp-a")
    head.logs = [["one\n", lambda: happens(head)]]
    with pytest.raises(RunError, match=message):
        followed(head, patience_seconds=0.1)
