"""Work that hangs ends its process; a pause does not."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

START = "import ctypes, time\nfrom raysp.labelling.engine.watchdog import touch, watched\nprint(flush=True)\n"


@pytest.fixture
def started():
    """Start `python -c` with some code, and end it with the test."""
    running: list[subprocess.Popen] = []

    def start(code: str) -> subprocess.Popen:
        streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = subprocess.Popen([sys.executable, "-c", START + code], **streams, text=True)
        running.append(process)
        os.read(process.stdout.fileno(), 1)  # no more: what a buffer holds would be lost to communicate()
        return process

    yield start
    for process in running:
        process.kill()
        process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize(
    "hangs",
    [
        "with watched(1):\n    ctypes.PyDLL(None).sleep(1000)",  # holds the lock of the interpreter
        "import threading\n"
        "def hang():\n    with watched(1):\n        time.sleep(1000)\n"
        "threading.Thread(target=hang).start()\n"
        "while True:\n    with watched(1000):\n        time.sleep(0.01)",
    ],
    ids=["under the lock", "beside another thread"],
)
def test_work_that_hangs_ends_its_process_with_a_traceback(started, hangs):
    process = started(hangs)
    _, said = process.communicate(timeout=120)
    assert process.returncode in (-signal.SIGABRT, -signal.SIGKILL)
    assert "most recent call first" in said


@pytest.mark.drivers
@pytest.mark.slow
def test_a_pause_for_longer_than_the_time_out_ends_nothing(started):
    process = started("with watched(1):\n    print('in', flush=True)\n    input()\nprint('done')")
    assert process.stdout.readline() == "in\n"
    os.kill(process.pid, signal.SIGSTOP)
    time.sleep(2.5)
    os.kill(process.pid, signal.SIGCONT)
    assert process.communicate("go on\n", timeout=120)[0] == "done\n"
    assert process.returncode == 0


def test_it_ends_with_the_process_that_it_watches(started):
    process = started("with watched(1000):\n    pass\nprint('ready', flush=True)\ninput()")
    assert process.stdout.readline() == "ready\n"
    [watching] = psutil.Process(process.pid).children()
    process.kill()
    process.communicate()
    assert psutil.wait_procs([watching], timeout=60)[1] == [] or watching.status() == psutil.STATUS_ZOMBIE
