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


def test_lines_of_a_repeated_log_are_emitted_once_wherever_a_request_cuts_it(running):
    log = "first\n\nsecond\nthird"
    running.logs = [*([log[:cut]] for cut in range(len(log) + 1)), [log, ends(running)], [log]]
    assert followed(running)[1] == ["first", "", "second", "third"]


def test_a_lost_connection_repeats_and_loses_no_line(running):
    away = [lambda: running.failing.extend([502, 503])]
    last = ["one\ntwo\nthree\nfour\n", ends(running)]
    running.logs = [["one\ntw", LOST], [LOST], ["one\ntwo\nthr"], away, last]
    job, lines = followed(running)
    assert (job.status, lines) == ("succeeded", ["one", "two", "three", "four"])


def test_last_lines_that_a_log_leaves_out_as_the_job_ends_are_read_afterwards(running):
    running.logs = [["one\n", ends(running, 143)], ["one\nraysp: stopped\n"]]
    job, lines = followed(running)
    assert (job.exit_code, lines) == (143, ["one", "raysp: stopped"])
    running.logs = [[LOST]]  # as of a node that failed
    assert followed(running)[1] == []


def test_a_head_that_stays_away_is_given_up(running):
    running.logs = [["one\n", lambda: running.failing.extend([503] * 1000)]]
    with pytest.raises(RunError, match=r"HTTP 503.* No answer for 0 s; the job may go on"):
        followed(running, patience_seconds=0.1)


def test_a_head_that_forgot_the_job_is_said_to_have_been_restarted(running):
    running.logs = [["one\n", running.jobs.clear]]
    with pytest.raises(RunError, match=r"no job of raysp named 'raysp-a'.*Has the head been restarted\? Submit again"):
        followed(running)
