"""Workers of Ray that are forked from a process which has imported torch and raysp, instead of importing them again.

A run on Ray starts some five processes, and most of what a small run costs is their imports. The Ray that tests share
starts `launcher` in place of each worker: it asks `server` for a child, which goes on as Ray's own worker would.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.forked.launcher import SOCKET

FOLDER = Path(__file__).parent


@contextmanager
def workers() -> Iterator[None]:
    """Fork the workers of each local Ray that this process starts; with `RAYSP_TEST_FORK=0` they start as usual."""
    if os.environ.get("RAYSP_TEST_FORK") == "0":
        yield
        return
    from ray._private import ray_constants

    with tempfile.TemporaryDirectory(prefix="raysp-fork-") as folder, pytest.MonkeyPatch.context() as patched:
        address = f"{folder}/socket"
        command = [sys.executable, str(FOLDER / "server.py"), address]
        server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert server.stdin is not None
        assert server.stdout is not None
        try:
            server.stdout.readline()  # it listens
            patched.setenv(SOCKET, address)
            patched.setattr(ray_constants, "SETUP_WORKER_FILENAME", str(FOLDER / "launcher.py"))
            yield
        finally:
            server.stdin.close()  # the end of this process, however it comes, ends the server
            server.wait(timeout=30)
            server.stdout.close()
