"""Ctrl-C and SIGTERM while Ray starts and while a run goes on."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
import typer

import raysp
from raysp.cli.arguments import INTERRUPTED, TERMINATED
from raysp.cli.stop_signals import stoppable_display
from raysp.cluster.connection import local_ray
from raysp.cluster.resources import Resources
from raysp.labelling.engine.here import CommitsHere
from raysp.sink.lease import Running
from tests.corpora import CHECKPOINT, a_pipeline, write_shard


class Stopped(BaseException):
    """Exception of the handlers in these tests."""


@pytest.fixture(params=[signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def number(request):
    """A signal whose handler raises `Stopped`."""

    def stop(number, _frame):
        raise Stopped(number)

    before, threads = signal.signal(request.param, stop), set(threading.enumerate())
    yield request.param
    for thread in set(threading.enumerate()) - threads:
        thread.join()  # that in which Ray starts: after a second signal nobody waits for it
    signal.signal(request.param, before)


@pytest.mark.parametrize("times", [1, 2])
def test_a_signal_while_ray_starts_ends_it_once_it_has_started(starts, number, times):
    """An exception within Ray's start would leave a half of it."""
    reached = []

    def look() -> None:
        for _ in range(times):
            signal.pthread_kill(threading.main_thread().ident, number)
            time.sleep(0.1)
        reached.append("end")

    starts.look = look
    with pytest.raises(Stopped), local_ray(Resources(cpus=1)):
        pytest.fail("it went on")
    deadline = time.monotonic() + 10
    while starts.seen != ["started", "ended"]:  # after a second signal it is not waited for
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert reached == ["end"]


def test_a_signal_is_not_lost_where_ray_fails_to_start(starts, number):
    starts.failing = 9
    starts.look = lambda: signal.pthread_kill(threading.main_thread().ident, number)
    with pytest.raises(Stopped), local_ray(Resources(cpus=1)):
        pytest.fail("it went on")


def test_a_handler_of_rays_library_is_undone(starts, number):
    """It prints a stack trace on SIGTERM."""
    starts.look = lambda: ctypes.CDLL(None).signal(signal.SIGTERM, ctypes.c_void_p(signal.SIG_IGN))
    with local_ray(Resources(cpus=1)), pytest.raises(Stopped):
        signal.raise_signal(number)


STOPPED_AMID_THE_IMPORT = """
import os, signal, sys
from raysp.cluster.connection import local_ray

class AmidTheImport:
    def find_spec(self, name, path=None, target=None):
        if hasattr(sys.modules.get("ray._private.worker"), "shutdown"):  # its exit handler is registered
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGTERM)

sys.meta_path.insert(0, AmidTheImport())
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
with local_ray(None):
    pass
"""


@pytest.mark.slow
def test_a_signal_amid_the_import_of_ray_leaves_no_half_of_it():
    ran = subprocess.run([sys.executable, "-c", STOPPED_AMID_THE_IMPORT], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (143, "")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, INTERRUPTED), (signal.SIGTERM, TERMINATED)])
def test_a_stop_swallowed_by_other_code_is_raised_again(number, code):
    reached = []

    def run():
        with stoppable_display() as display:
            with contextlib.suppress(BaseException):
                signal.raise_signal(number)
            reached.append("after")
            display.check()
            reached.append("end")

    with pytest.raises(typer.Exit) as stop:
        run()
    assert (stop.value.exit_code, reached) == (code, ["after"])


@pytest.mark.lengthy
def test_a_stop_swallowed_while_the_last_commits_are_awaited_ends_the_run(tmp_path, without_ray, monkeypatch):
    """Python drops the exception of a handler that runs within a finaliser or a callback."""
    write_shard(tmp_path / "in" / "a.parquet")

    def await_commits(_):
        with contextlib.suppress(BaseException):
            signal.raise_signal(signal.SIGTERM)
        yield []
        raise AssertionError("the run goes on")

    monkeypatch.setattr(CommitsHere, "rest", await_commits)
    with pytest.raises(typer.Exit) as stop, stoppable_display() as display:
        raysp.run(a_pipeline(f"{tmp_path}/in", tmp_path / "out"), on_progress=lambda _: display.check(), progress=False)
    assert stop.value.exit_code == TERMINATED


A_SLOW_END = """
import os, signal, sys, time
import typer
from raysp.cli.stop_signals import stoppable_display

try:
    with stoppable_display():
        try:
            signal.alarm(1)  # as Ray's handler in C++ does before Python's
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        finally:
            time.sleep(2)
except typer.Exit as stop:
    sys.exit(stop.exit_code)
"""


@pytest.mark.drivers
@pytest.mark.slow
def test_a_stopped_run_has_the_time_that_it_needs_to_end():
    ran = subprocess.run([sys.executable, "-c", A_SLOW_END], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr.count("\n")) == (TERMINATED, 1)
    assert ran.stderr.startswith("raysp: stopped; ")


A_SLOW_STEP = """
import time
from pathlib import Path

import raysp


def slow(rows):
    Path({reached!r}).touch()
    time.sleep(60)


pipeline = raysp.Pipeline(
    raysp.Shards({source!r}),
    steps=[
        raysp.Decode(),
        raysp.Map(slow, adds={{"n": "int64"}}, reads=["id"]),
        raysp.Label({checkpoint!r}, outputs=[raysp.Transcript()]),
    ],
    sink=raysp.Parquet({sink!r}),
)
"""


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["--rows", "2"]], ids=["run", "try-out"])
def test_a_signal_to_a_command_and_then_to_its_process_group_ends_the_run_in_order(tmp_path, options):
    """As `timeout` does it."""
    sink, reached, temporary = tmp_path / "out", tmp_path / "reached", tmp_path / "temporary"
    temporary.mkdir()
    write_shard(tmp_path / "in" / "a.parquet")
    file = tmp_path / "label.py"
    places = {"source": f"{tmp_path}/in", "checkpoint": str(CHECKPOINT), "sink": str(sink), "reached": str(reached)}
    file.write_text(A_SLOW_STEP.format(**places))
    ran = subprocess.Popen(
        [sys.executable, "-m", "raysp", "run", str(file), "--engine", "here", *options],
        env={**os.environ, "TMPDIR": str(temporary)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while not reached.exists():
        assert ran.poll() is None, ran.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    ran.send_signal(signal.SIGTERM)
    time.sleep(0.005)  # at once, they would arrive as one
    os.killpg(ran.pid, signal.SIGTERM)
    _, said = ran.communicate(timeout=50)
    assert ran.returncode in (TERMINATED, -signal.SIGTERM), said  # the latter if the second arrives at its very end
    assert "Traceback" not in said
    if options:
        assert said.endswith("raysp: stopped; no labels were kept\n")
        assert not [*temporary.iterdir()]
        assert not sink.exists()
    else:
        assert f"To resume: raysp run {file}" in said
        assert raysp.status(str(sink)).running is Running.NO
