"""Following the log of a job across lost connections."""

from functools import partial

import pytest

from raysp import RunError
from raysp.cluster.submitting.head import Head, Job, follow
from tests.cluster.submitting.fake_head import LOST, FakeHead

at_once = partial(follow, pause_seconds=0.01)


def followed(head: FakeHead, **options) -> tuple[Job, list[str]]:
    lines: list[str] = []
    return at_once(Head(head.url), "raysp-a", lines.append, **options), lines


@pytest.fixture
def running(head: FakeHead) -> FakeHead:
    head.add("raysp-a")
    return head


def ends(head: FakeHead, code: int = 0):
    return lambda: head.end("raysp-a", "FAILED" if code else "SUCCEEDED", code)


def test_lines_are_emitted_once_wherever_a_request_cuts_the_log_or_a_connection_is_lost(running):
    log = "first\n\nsecond\nthird"
    away = [lambda: running.failing.extend([502, 503])]
    lost = [["first\n\nsec", LOST], [LOST], away]
    running.logs = [*lost, *([log[:cut]] for cut in range(len(log) + 1)), [log, ends(running)], [log]]
    job, lines = followed(running)
    assert (job.status, lines) == ("succeeded", ["first", "", "second", "third"])


def test_last_lines_that_a_log_leaves_out_as_the_job_ends_are_read_afterwards(running):
    running.logs = [["one\n", ends(running, 143)], ["one\nraysp: stopped\n"]]
    job, lines = followed(running)
    assert (job.exit_code, lines) == (143, ["one", "raysp: stopped"])
    running.logs = [[LOST]]  # as of a node that failed
    assert followed(running)[1] == []


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
def test_a_head_that_stays_away_or_forgot_the_job_ends_the_following(running, happens, message):
    running.logs = [["one\n", lambda: happens(running)]]
    with pytest.raises(RunError, match=message):
        followed(running, patience_seconds=0.1)
