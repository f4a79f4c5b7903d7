"""Processes that are forked from one which has imported torch and raysp, instead of importing them again.

A run on Ray starts some five processes, and most of what a small run costs is their imports. The Ray that tests share
starts `launcher` in place of each worker: it asks `server` for a child, which goes on as Ray's own worker would.
Commands are forked from a second server, which has not imported Ray.
"""

import atexit
import functools
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.forked.launcher import SOCKET, ask

FOLDER = Path(__file__).parent
MOST_SECONDS = 600
"""Of a command, on a busy machine."""


@contextmanager
def server(kind: str) -> Iterator[str]:
    """Start a server of "workers" or of "commands", and return its address. It ends with this process at the latest."""
    with tempfile.TemporaryDirectory(prefix="raysp-fork-") as folder:
        address = f"{folder}/socket"
        command = [sys.executable, str(FOLDER / "server.py"), address, kind]
        started = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert started.stdin is not None
        assert started.stdout is not None
        try:
            started.stdout.readline()  # it listens
            yield address
        finally:
            started.stdin.close()  # the end of this process, however it comes, ends the server
            started.wait(timeout=30)
            started.stdout.close()


@functools.cache
def _server_of_commands() -> str:
    running = ExitStack()
    atexit.register(running.close)
    return running.enter_context(server("commands"))


def python(
    arguments: Sequence[str], environment: Mapping[str, str], folder: Path | None = None, *, merged: bool = False
) -> tuple[int, str, str]:
    """Run `python -m` or `python -c` with these arguments; return its exit code, negative for a signal, and its output.

    For commands that read no variable while they import what the server has imported. The output is that of stdout and
    that of stderr, or all of it and nothing if both are one stream.
    """
    request = {"command": [*arguments], "environment": dict(environment), "folder": str(folder or Path.cwd())}
    with open(os.devnull) as nothing, tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        streams = [file.fileno() for file in (nothing, out, out if merged else err)]
        code = ask(_server_of_commands(), request, streams, MOST_SECONDS)
        out.seek(0)
        err.seek(0)
        return code, out.read(), err.read()


@contextmanager
def workers() -> Iterator[None]:
    """Fork the workers of each local Ray that this process starts; with `RAYSP_TEST_FORK=0` they start as usual."""
    if os.environ.get("RAYSP_TEST_FORK") == "0":
        yield
        return
    from ray._private import ray_constants

    with server("workers") as address, pytest.MonkeyPatch.context() as patched:
        patched.setenv(SOCKET, address)
        patched.setattr(ray_constants, "SETUP_WORKER_FILENAME", str(FOLDER / "launcher.py"))
        yield
