"""What Ray starts in place of its `setup_worker.py`: asks the server for a worker, and stays until that one ends.

    python launcher.py --serialized-runtime-env-context=... --language=PYTHON default_worker.py --node-id=...

It imports little, since it starts as often as a worker does. A worker whose runtime environment has more than
variables is started by Ray's script.
"""

import json
import os
import socket
import sys

SOCKET = "RAYSP_TEST_FORK_SOCKET"
"""Environment variable with the path of the server's socket."""
CONTEXT = "--serialized-runtime-env-context="
LANGUAGE = "--language="


def main(arguments: list[str]) -> int:
    context = json.loads(next((one[len(CONTEXT) :] for one in arguments if one.startswith(CONTEXT)), "{}"))
    variables = context.pop("env_vars", {})
    is_own = context.pop("py_executable", sys.executable) == sys.executable
    command = [one for one in arguments if not one.startswith((CONTEXT, LANGUAGE))]
    if any(context.values()) or not is_own or "$" in str(variables) or not command[0].endswith("default_worker.py"):
        start_unforked(arguments)
    request = {"command": command, "environment": {**os.environ, **variables}, "folder": os.getcwd()}
    return ask(os.environ[SOCKET], request, [0, 1, 2])


def ask(address: str, request: dict[str, object], streams: list[int], seconds: float | None = None) -> int:
    """Have a process forked with these standard streams; return its exit code, negative for a signal."""
    data = json.dumps(request).encode()
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(address)
        socket.send_fds(server, [len(data).to_bytes(8, "big")], streams)
        server.sendall(data)
        server.settimeout(seconds)
        return int(server.recv(8) or b"1")


def start_unforked(arguments: list[str]) -> None:
    from ray._private import workers

    script = os.path.join(next(iter(workers.__path__)), "setup_worker.py")
    os.execv(sys.executable, [sys.executable, script, *arguments])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
