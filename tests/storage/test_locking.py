"""The lock under which a file of an expected version is replaced."""

import errno
import os
import signal
import subprocess
import sys

import pytest

from raysp import StoreError
from raysp.storage import opened
from raysp.storage.opened import locked
from raysp.storage.store import LocalStore

HOLD = """
import sys
from pathlib import Path
from raysp.storage.opened import locked
with locked(Path(sys.argv[1])):
    print(1, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds the lock."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "x" / "lock")]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"1\n"
    yield process
    process.kill()
    process.communicate()


def test_a_lock_that_is_held_is_waited_for_and_then_named(holder, tmp_path, monkeypatch):
    monkeypatch.setattr(opened, "WAIT_SECONDS", 0.1)
    os.kill(holder.pid, signal.SIGSTOP)
    with (
        pytest.raises(StoreError, match=r"x/lock: another process has held this lock.*it is paused"),
        locked(tmp_path / "x" / "lock"),
    ):
        pass


def test_the_lock_ends_with_its_process(holder, tmp_path):
    holder.kill()
    with locked(tmp_path / "x" / "lock"):
        pass
    with locked(tmp_path / "x" / "lock"):
        pass


@pytest.fixture
def without_locks(monkeypatch):
    def refused(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(opened.fcntl, "flock", refused)


def test_a_file_system_without_locks_replaces_what_it_looked_at(tmp_path, without_locks):
    store = LocalStore(tmp_path)
    store.create("a", b"one")
    version = store.stat("a").version
    for data, expected, is_published in ((b"two", version, True), (b"late", version, False)):
        with store.scratch() as scratch:
            scratch.write_bytes(data)
            assert bool(store.publish(scratch, "a", replace=True, expected=expected)) is is_published
    assert store.read("a") == b"two"


def test_a_file_system_without_locks_is_named_once_per_folder(tmp_path, without_locks, caplog):
    for _ in range(2):
        with locked(tmp_path / "x" / "lock"):
            pass
    (warning,) = [record.getMessage() for record in caplog.records]
    assert warning.startswith(f"{tmp_path / 'x'}: files cannot be locked here")
    assert warning.endswith("start one run at a time")
