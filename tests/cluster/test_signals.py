"""Ctrl-C and SIGTERM while Ray starts and while a run goes on."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

import raysp
from tests import kit
from tests.corpora import a_pipeline, write_shard


class Stopped(BaseException):
    """Exception of the handler in these tests."""


@pytest.fixture
def handled():
    """SIGTERM raises `Stopped`."""

    def stop(number, _frame):
        raise Stopped(number)

    before, threads = signal.signal(signal.SIGTERM, stop), set(threading.enumerate())
    yield stop
    for thread in set(threading.enumerate()) - threads:
        thread.join()  # that in which Ray starts: after a second signal nobody waits for it
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(("times", "failing"), [(1, 0), (2, 0), (1, 9)])
def test_a_signal_while_ray_starts_ends_it_once_it_has_started(starts, handled, tmp_path, times, failing):
    """An exception within Ray's start would leave a half of it."""
    reached = []

    def look() -> None:
        for _ in range(times if not reached else 0):
            signal.pthread_kill(threading.main_thread().ident, signal.SIGTERM)
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
    assert (reached[0], signal.getsignal(signal.SIGTERM)) == ("end", handled)


SLOW = """
import time
from pathlib import Path


def slow(rows):
    Path({reached!r}).touch()
    time.sleep(60)
"""


@pytest.mark.slow
def test_a_signal_to_a_try_out_and_then_to_its_process_group_ends_it_in_order(tmp_path, monkeypatch):
    """As `timeout` does it."""
    sink, reached, temporary = tmp_path / "out", tmp_path / "reached", tmp_path / "temporary"
    temporary.mkdir()
    (tmp_path / "slow_step.py").write_text(SLOW.format(reached=str(reached)))
    monkeypatch.syspath_prepend(tmp_path)
    step = raysp.Map("slow_step:slow", adds={"n": "int64"}, reads=["id"])
    pipeline = kit.corpus(tmp_path / "in", 3).pipeline(sink, steps=[step])
    ran = subprocess.Popen(
        [sys.executable, "-m", "raysp", "run", kit.pipeline_file(tmp_path / "label.py", pipeline), "--rows", "2"],
        env={**os.environ, "TMPDIR": str(temporary), "RAYSP_ENGINE": "here"},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while not reached.exists():
        assert ran.poll() is None, ran.stderr.read()
        time.sleep(0.05)
    ran.send_signal(signal.SIGTERM)
    time.sleep(0.005)  # at once, they would arrive as one
    os.killpg(ran.pid, signal.SIGTERM)
    _, said = ran.communicate(timeout=50)
    assert ran.returncode in (143, -signal.SIGTERM), said  # the latter if the second arrives at its very end
    assert "Traceback" not in said
    assert said.endswith("raysp: stopped; no labels were kept\n")
    assert [[*temporary.iterdir()], sink.exists()] == [[], False]
