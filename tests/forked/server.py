"""The process that forks workers of Ray, or commands of Python.

    python server.py SOCKET workers|commands

It ends when its stdin does; its children end with their Ray.
"""

import contextlib
import gc
import importlib
import json
import os
import random
import runpy
import selectors
import signal
import socket
import sys
import types
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from unittest import mock

MODULES = (
    "pandas",
    "pyarrow.dataset",
    "pyarrow.parquet",
    "ray._private.external_storage",
    "ray._private.node",
    "ray._private.runtime_env.setup_hook",
    "ray.data",
    "ray.train.torch",
    "raysp.labelling.assembly",
    "raysp.labelling.engine.piece",
    "raysp.labelling.engine.ray_actor",
    "raysp.labelling.engine.piece_reading",
    "raysp.models.unispeech",
    "raysp.ops.labelling",
    "raysp.training.on_ray.train_workers",
    "raysp.training.loop.worker",
    "torch._dynamo",  # which optimizers import
)
COMMANDS = (
    "pyarrow.dataset",
    "pyarrow.parquet",
    "raysp.cli.entry",
    "raysp.cli.label_verbs",
    "raysp.labelling.assembly",
    "raysp.labelling.engine.here",
    "raysp.labelling.finished.first_rows",
    "raysp.models.unispeech",
    "raysp.ops.labelling",
)


def main(address: str, kind: str) -> None:
    if kind == "commands":
        import_all(COMMANDS)
        assert "ray" not in sys.modules, "a command that labels little does not import it"
    request = fork_on_request(address, are_workers=kind == "workers")
    if request is not None:
        work(request)


def fork_on_request(address: str, *, are_workers: bool) -> dict[str, Any] | None:
    """Fork a child for each request; return the request in the child, and None in this process when stdin ends."""
    launchers: dict[int, socket.socket] = {}
    with contextlib.ExitStack() as opened:
        events = opened.enter_context(selectors.DefaultSelector())
        listener = opened.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(address)
        listener.listen(64)
        ended, to_end = (opened.enter_context(one) for one in socket.socketpair())
        to_end.setblocking(False)
        signal.set_wakeup_fd(to_end.fileno())
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        for file in (listener, ended, sys.stdin):
            events.register(file, selectors.EVENT_READ)
        sys.stdout.write("listening\n")
        sys.stdout.flush()
        while True:
            ready = [key.fileobj for key, _ in events.select()]
            if sys.stdin in ready:
                return None
            if ended in ready:
                ended.recv(4096)
                tell_launchers(launchers)
            if listener in ready:
                launcher, _ = listener.accept()
                opened.enter_context(launcher)
                request, files = receive(launcher)
                if are_workers:
                    load(request["environment"])
                pid = os.fork()
                if not pid:
                    signal.set_wakeup_fd(-1)
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    for target, file in enumerate(files):
                        os.dup2(file, target)
                launchers[pid] = launcher
                for file in files:
                    os.close(file)
                if not pid:
                    return request


def receive(launcher: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Read a request and the standard streams of its worker."""
    size, files, _, _ = socket.recv_fds(launcher, 8, 3)
    data = b""
    while len(data) < int.from_bytes(size, "big"):
        data += launcher.recv(1 << 20)
    return json.loads(data), files


def load(environment: dict[str, str]) -> None:
    """Import the modules with the environment of the first worker, which Ray reads as it is imported."""
    if "ray" in sys.modules:
        return
    os.environ.clear()
    os.environ.update(environment)
    import ray.actor

    # Its own would be drawn from a generator whose state all children inherit, with all ids that they draw later.
    with mock.patch.object(ray.actor, "ActorClassID", _DrawnId):
        import_all(MODULES)


def import_all(names: Iterable[str]) -> None:
    for name in names:
        importlib.import_module(name)
    gc.freeze()  # so that collections in a child copy no pages


class _DrawnId:
    """Ids of the actor classes of `ray.data`, which are the same in all children."""

    @staticmethod
    def from_random() -> Any:
        import ray

        return ray.ActorClassID(os.urandom(ray.ActorClassID.size()))


def tell_launchers(launchers: dict[int, socket.socket]) -> None:
    """Send the exit statuses of children that have ended."""
    while launchers:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        with launchers.pop(pid) as launcher, contextlib.suppress(OSError):  # the launcher was killed
            launcher.sendall(str(os.waitstatus_to_exitcode(status)).encode())


def work(request: dict[str, Any]) -> None:
    """Go on as the worker that Ray's script would have become, or as `python -m` or `python -c`."""
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    for module in (random, sys.modules["numpy"].random, sys.modules["torch"]):
        module.seed()
    script, *arguments = request["command"]
    sys.argv[:] = [script, *arguments]
    sys.path[0] = str(Path(script).parent) if script.endswith(".py") else ""
    if script == "-m":
        del sys.argv[0]
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
    elif script == "-c":
        sys.modules["__main__"] = module = types.ModuleType("__main__")
        exec(compile(arguments[0], "<string>", "exec"), vars(module))
    else:
        runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main(*sys.argv[1:])
