"""Ctrl-C and SIGTERM while Ray starts and while a run goes on."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
import typer

import raysp
from raysp.cli.stop_signals import interruptible_sleep, stoppable_display
from tests.corpora import CHECKPOINT, a_pipeline, write_shard

INTERRUPTED, TERMINATED = 130, 143


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


@pytest.mark.parametrize(("times", "failing"), [(1, 0), (2, 0), (1, 9)])
def test_a_signal_while_ray_starts_ends_it_once_it_has_started(starts, number, tmp_path, times, failing):
    """An exception within Ray's start would leave a half of it."""
    reached = []

    def look() -> None:
        for _ in range(times if not reached else 0):
            signal.pthread_kill(threading.main_thread().ident, number)
            time.sleep(0.1)
        reached.append("end")

    starts.look, starts.failing = look, failing
    write_shard(tmp_path / "in" / "a.parquet", 1)
    with pytest.raises(Stopped):
        raysp.run(a_pipeline(f"{tmp_path}/in", tmp_path / "out"), engine="ray", progress=False)
    deadline = time.monotonic() + 10
    while starts.seen.count("started") != starts.seen.count("ended"):  # after a second signal it is not waited for
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert (reached[0], signal.getsignal(number).__name__) == ("end", "stop")


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
    """Python drops the exception of a handler that runs within a finaliser or a callback."""
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


def test_ctrl_c_outside_of_a_sleep_raises_at_the_next_one_and_twice_at_once():
    with interruptible_sleep() as sleep:
        sleep(0)
        signal.raise_signal(signal.SIGINT)  # in a finaliser its exception would be lost
        with pytest.raises(KeyboardInterrupt):
            sleep(0)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


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
        assert raysp.status(str(sink)).running.name == "NO"
