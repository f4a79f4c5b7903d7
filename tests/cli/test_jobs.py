"""What `raysp submit`, `jobs` and `stop` print and return, over a stand-in for the head of a cluster."""

import json
import re
import signal
import subprocess
import sys
import threading

import pytest

import raysp
from tests import kit
from tests.cluster.submitting.fake_head import FakeHead
from tests.commands import write_recipe


@pytest.fixture
def head(monkeypatch):
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_JOB_HEADERS"):
        monkeypatch.delenv(name, raising=False)
    with FakeHead().serving() as serving:
        yield serving


@pytest.fixture
def file(tmp_path):
    return write_recipe(tmp_path, source="s3://bucket/in/*.parquet", sink="s3://bucket/labels")


def ending(head: FakeHead, status: str, code: int | None, message: str = ""):
    """End the only job."""
    return lambda: head.end(next(iter(head.jobs)), status, code, message)


LOG = ["raysp: looking at s3://bucket/in ...\n", "raysp: 50% · 1/2 rows\n", "labels\ts3://bucket/labels: 1 of 1\n"]
STOPPED = "raysp: the job was stopped; what it committed is kept. To resume: submit it again"


def test_the_log_is_shown_as_by_a_run_and_the_exit_code_is_that_of_the_run(raysp_command, file, head):
    head.logs = [[*LOG, ending(head, "FAILED", 3)]]
    ran = raysp_command("submit", file, "--address", head.url)
    [job_id] = head.jobs
    assert ran.code == 3
    assert ran.out.splitlines()[0] == "labels  s3://bucket/labels: 1 of 1"
    pattern = rf"{job_id}  failed, exit code 3, began [-\d]+ [:\d]+ UTC, \d+:\d\d, sink s3://bucket/labels"
    assert re.fullmatch(pattern, ran.out.splitlines()[-1])
    assert ran.err.splitlines() == [
        f"raysp: submitted to {head.url} with {file.parent}; left out: nothing",
        f"raysp: following {job_id}; Ctrl-C ends following, not the job",
        "raysp: looking at s3://bucket/in ...",
        "raysp: 50% · 1/2 rows",
    ]
    shown = raysp_command("jobs", job_id, "--follow", "--address", head.url, "--json")
    assert (shown.code, json.loads(shown.out)["status"]) == (3, "failed")
    assert "labels  s3://bucket/labels: 1 of 1" in shown.err


@pytest.mark.parametrize(
    ("last", "status", "code", "message", "exit_code", "said"),
    [
        ("x", "FAILED", 1, "No module named 'raysp'", 2, "raysp: the cluster has no raysp; use an image with this"),
        ("x", "FAILED", None, "pip failed", 1, "raysp: the job failed outside of the run: pip failed"),
        ("raysp: 1% · 1 row", "STOPPED", None, "", 143, STOPPED),
        ("raysp: ... To resume: submit it again", "STOPPED", None, "", 143, "raysp: ... To resume: submit it again"),
    ],
)
def test_a_job_that_did_not_end_by_itself_is_shown_with_the_reason(
    raysp_command, file, head, last, status, code, message, exit_code, said
):
    head.logs = [[f"{last}\n", ending(head, status, code, message)]]
    ran = raysp_command("submit", file, "--address", head.url)
    assert (ran.code, ran.err.splitlines()[-1].startswith(said)) == (exit_code, True), ran.err
    assert ran.err.count("submit it again") == (status == "STOPPED")


def test_detached_it_says_how_to_follow_and_to_stop(raysp_command, file, head):
    ran = raysp_command("submit", file, "--address", head.url, "--detach")
    [job_id] = head.jobs
    assert ran.code == 0
    assert [line.split(maxsplit=1) for line in ran.out.splitlines()] == [
        ["job", job_id],
        ["follow", f"raysp jobs {job_id} --follow --address {head.url}"],
        ["stop", f"raysp stop {job_id} --address {head.url}"],
    ]
    assert not any(path.endswith("/logs") for _, path, _ in head.requests)


@pytest.mark.drivers
@pytest.mark.slow
def test_ctrl_c_leaves_the_job_running_and_says_how_to_go_on(file, head):
    is_following = threading.Event()
    head.logs = [["raysp: looking\n", is_following.set]]
    submitting = subprocess.Popen(
        [sys.executable, "-m", "raysp", "submit", str(file), "--address", head.url],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # tests in the background ignore it
    )
    assert is_following.wait(60)
    submitting.send_signal(signal.SIGINT)
    _, said = submitting.communicate(timeout=60)
    [job_id] = head.jobs
    assert submitting.returncode == 130
    assert said.splitlines()[-1] == (
        f"raysp: the job goes on. To follow it: raysp jobs {job_id} --follow --address {head.url}; "
        f"to stop it: raysp stop {job_id} --address {head.url}"
    )
    assert "Traceback" not in said
    assert "asked_to_stop" not in head.jobs[job_id]


def test_jobs_are_listed_a_line_each_and_one_is_stopped_and_shown(raysp_command, head):
    head.add("raysp-a", "STOPPED", start_time=1000, end_time=62_000)
    head.add("raysp-b", start_time=2000, metadata={"raysp_version": "0.1.0", "raysp_sink": "s3://b/l"})
    first, second = raysp_command("jobs", "--address", head.url).out.splitlines()
    assert first == "raysp-a  stopped, exit code 143, began 1970-01-01 00:00:01 UTC, 1:01, sink s3://bucket/labels"
    assert second.startswith("raysp-b  running, began 1970-01-01 00:00:02 UTC, ")
    assert second.endswith("sink s3://b/l")
    ran = raysp_command("stop", "raysp-b", "--address", head.url)
    assert (ran.code, ran.out.startswith("raysp-b  stopped, exit code 143, ")) == (0, True)
    ran = raysp_command("stop", "raysp-c", "--address", head.url)
    assert (ran.code, f"raysp: {head.url} has no job of raysp named" in ran.err) == (2, True)


def test_a_password_in_the_address_is_in_no_message_and_no_command(raysp_command, file, head):
    with_password = head.url.replace("://", "://user:pa55word@")
    for verb in (["submit", file, "--detach"], ["jobs"], ["jobs", "none"], ["stop", "none"]):
        ran = raysp_command(*verb, "--address", with_password)
        assert "pa55word" not in ran.out + ran.err
        assert ("user:***@" in ran.out + ran.err) == (verb != ["jobs"])
    gone = raysp_command("jobs", "--address", "http://user:pa55word@127.0.0.1:9")
    assert (gone.code, "--address http://user:***@127.0.0.1:9: nothing answers there" in gone.err) == (2, True)


def test_inside_a_job_another_version_is_refused_before_the_pipeline_file_is_read(tmp_path):
    ran = kit.run(["run", tmp_path / "missing.py"], RAYSP_SUBMITTED_BY="9.9.9")
    said = f"raysp: submitted by raysp 9.9.9, but the cluster has raysp {raysp.__version__}; install"
    assert (ran.code, ran.err.startswith(said)) == (2, True)
