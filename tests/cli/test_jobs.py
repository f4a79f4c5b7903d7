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


class TestSubmit:
    def test_the_log_is_shown_as_by_a_run_and_the_exit_code_is_that_of_the_run(self, raysp_command, file, head):
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

    @pytest.mark.parametrize(
        ("message", "code", "said"),
        [
            ("No module named 'raysp'", 2, "the cluster has no raysp; use an image with this version of it, or bring"),
            ("pip failed", 1, "the job failed outside of the run: pip failed"),
        ],
    )
    def test_a_job_that_could_not_start_is_shown_with_the_reason(self, raysp_command, file, head, message, code, said):
        head.logs = [[ending(head, "FAILED", 1 if code == 2 else None, message)]]
        ran = raysp_command("submit", file, "--address", head.url)
        assert (ran.code, ran.err.splitlines()[-1].startswith(f"raysp: {said}")) == (code, True), ran.err

    def test_json_is_one_object_and_the_log_goes_to_stderr(self, raysp_command, file, head):
        head.logs = [[*LOG, ending(head, "SUCCEEDED", 0)]]
        ran = raysp_command("submit", file, "--address", head.url, "--json")
        job = json.loads(ran.out)
        assert (ran.code, job["status"], job["exit_code"], job["sink"]) == (0, "succeeded", 0, "s3://bucket/labels")
        assert "labels  s3://bucket/labels: 1 of 1" in ran.err

    def test_detached_it_says_how_to_follow_and_to_stop(self, raysp_command, file, head):
        ran = raysp_command("submit", file, "--address", head.url, "--detach")
        [job_id] = head.jobs
        assert ran.code == 0
        assert [line.split(maxsplit=1) for line in ran.out.splitlines()] == [
            ["job", job_id],
            ["follow", f"raysp jobs {job_id} --follow --address {head.url}"],
            ["stop", f"raysp stop {job_id} --address {head.url}"],
        ]
        assert not any(path.endswith("/logs") for _, path, _ in head.requests)

    @pytest.mark.parametrize(
        ("last", "said"),
        [
            ("raysp: 1% · 1 row", "raysp: the job was stopped; what it committed is kept. To resume: submit it again"),
            ("raysp: stopped; ... To resume: submit it again", "raysp: stopped; ... To resume: submit it again"),
        ],
    )
    def test_a_stopped_job_says_once_how_to_resume_it(self, raysp_command, file, head, last, said):
        head.logs = [[f"{last}\n", ending(head, "STOPPED", None)]]
        ran = raysp_command("submit", file, "--address", head.url)
        assert (ran.code, ran.err.splitlines()[-1]) == (143, said)
        assert ran.err.count("submit it again") == 1

    @pytest.mark.slow
    def test_ctrl_c_leaves_the_job_running_and_says_how_to_go_on(self, file, head):
        is_following = threading.Event()
        head.logs = [["raysp: looking\n", is_following.set]]
        command = [sys.executable, "-m", "raysp", "submit", str(file), "--address", head.url]
        submitting = subprocess.Popen(
            command,
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
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


class TestJobs:
    def test_jobs_are_listed_a_line_each(self, raysp_command, head):
        head.add("raysp-a", "STOPPED", start_time=1000, end_time=62_000)
        head.add(
            "raysp-b",
            start_time=2000,
            metadata={"raysp_version": "0.1.0", "raysp_sink": "s3://b/l"},
        )
        ran = raysp_command("jobs", "--address", head.url)
        first, second = ran.out.splitlines()
        assert first == (
            "raysp-a  stopped, exit code 143, began 1970-01-01 00:00:01 UTC, 1:01, sink s3://bucket/labels"
        )
        assert second.startswith("raysp-b  running, began 1970-01-01 00:00:02 UTC, ")
        assert second.endswith("sink s3://b/l")

    def test_a_job_is_followed_again_from_its_beginning(self, raysp_command, head):
        head.add("raysp-a")
        head.logs = [[*LOG, ending(head, "SUCCEEDED", 0)]]
        ran = raysp_command("jobs", "raysp-a", "--follow", "--address", head.url)
        assert (ran.code, ran.out.splitlines()[0]) == (0, "labels  s3://bucket/labels: 1 of 1")


def test_a_job_is_stopped_and_shown(raysp_command, head):
    head.add("raysp-a", start_time=1000)
    ran = raysp_command("stop", "raysp-a", "--address", head.url)
    assert ran.code == 0
    assert ran.out.startswith("raysp-a  stopped, exit code 143, ")
    assert json.loads(raysp_command("stop", "raysp-a", "--address", head.url, "--json").out)["status"] == "stopped"
    ran = raysp_command("stop", "raysp-b", "--address", head.url)
    assert (ran.code, ran.complaints[-1][:50]) == (2, f"raysp: {head.url} has no job of raysp named"[:50])


def test_a_password_in_the_address_is_in_no_message_and_no_command(raysp_command, file, head):
    with_password = head.url.replace("://", "://user:pa55word@")
    for verb in (["submit", file, "--detach"], ["jobs"], ["jobs", "none"], ["stop", "none"]):
        ran = raysp_command(*verb, "--address", with_password)
        assert "pa55word" not in ran.out + ran.err
        assert ("user:***@" in ran.out + ran.err) == (verb != ["jobs"])
    gone = raysp_command("jobs", "--address", "http://user:pa55word@127.0.0.1:9")
    assert gone.code == 2
    assert "--address http://user:***@127.0.0.1:9: nothing answers there" in gone.err


def test_inside_a_job_another_version_is_refused_before_the_pipeline_file_is_read(tmp_path):
    ran = kit.run(["run", tmp_path / "missing.py"], RAYSP_SUBMITTED_BY="9.9.9")
    said = f"raysp: submitted by raysp 9.9.9, the cluster has raysp {raysp.__version__}; install"
    assert (ran.code, ran.err.startswith(said)) == (2, True)
