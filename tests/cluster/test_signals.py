"""Ctrl-C and SIGTERM while Ray starts and while a run goes on."""

import contextlib
import signal
import subprocess
import sys

import pytest
import typer
from ray._private import utils

import raysp
from raysp.cli.arguments import INTERRUPTED, TERMINATED
from raysp.cli.stop_signals import resume_hint
from raysp.cluster.ray_start import signals_held
from raysp.labelling.engine.here import CommitsHere
from tests.corpora import a_pipeline, write_shard


class Stopped(BaseException):
    """Exception of the handlers in these tests."""


@pytest.fixture(params=[signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def number(request):
    """A signal whose handler raises `Stopped`."""

    def stop(number, _frame):
        raise Stopped(number)

    before = signal.signal(request.param, stop)
    yield request.param
    signal.signal(request.param, before)


def test_a_signal_waits_until_ray_has_started(number):
    reached = []

    def start():
        with signals_held():
            signal.raise_signal(number)
            reached.append("end")

    with pytest.raises(Stopped):
        start()
    assert reached == ["end"]


def test_a_second_signal_does_not_wait(number):
    reached = []

    def start():
        with signals_held():
            signal.raise_signal(number)
            reached.append("between")
            signal.raise_signal(number)
            reached.append("end")

    with pytest.raises(Stopped):
        start()
    assert reached == ["between"]


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


def test_a_signal_is_not_lost_where_ray_fails_to_start(number):
    def start():
        with signals_held():
            signal.raise_signal(number)
            raise ValueError("no start")

    with pytest.raises(Stopped):
        start()


def test_a_start_leaves_the_handlers_as_they_were(number):
    handler = signal.getsignal(number)
    rays_own = utils.set_sigterm_handler
    with signals_held():
        utils.set_sigterm_handler(lambda *_: None)  # as ray.init does
    assert signal.getsignal(number) is handler
    assert utils.set_sigterm_handler is rays_own


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, INTERRUPTED), (signal.SIGTERM, TERMINATED)])
def test_a_stop_swallowed_by_other_code_is_raised_again(number, code):
    reached = []

    def run():
        with resume_hint(quiet=True) as check:
            with contextlib.suppress(BaseException):
                signal.raise_signal(number)
            reached.append("after")
            check()
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
    with pytest.raises(typer.Exit) as stop, resume_hint(quiet=True) as check:
        raysp.run(a_pipeline(f"{tmp_path}/in", tmp_path / "out"), on_progress=lambda _: check(), progress=False)
    assert stop.value.exit_code == TERMINATED


A_SLOW_END = """
import os, signal, sys, time
import typer
from raysp.cli.stop_signals import resume_hint

try:
    with resume_hint(quiet=True):
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
    assert (ran.returncode, ran.stderr) == (TERMINATED, "")
