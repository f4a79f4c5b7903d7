"""Ray clusters of several nodes on this machine.

Nodes of an isolated cluster share no file system: each has mounts and processes of its own, and all share the network.
Over the temporary folders, the shared memory and the tests each node has empty file systems, so that no corpus, sink,
checkpoint, cache or pipeline file of the driver's exists there: only Python and raysp, as in an image. The head, on
which drivers run, has the file system of the tests, and no CPUs.

A node is killed as a machine that loses power: all its processes end at once, and its files are gone.
"""

import contextlib
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil

from tests.s3_servers import free_port

ROOT = Path(__file__).parents[2]
START_SECONDS = 180
RAYLET_SECONDS = 40
"""Time for the server of a node to start: it gives up after less if the machine is busy, and is started again."""
PATIENT = {
    "RAY_agent_register_timeout_ms": str(1000 * START_SECONDS),
    "RAY_raylet_start_wait_time_s": str(START_SECONDS),
    "RAY_gcs_server_port_wait_time_s": str(START_SECONDS),
    "RAY_gcs_rpc_server_connect_timeout_s": str(START_SECONDS),
}
"""On a busy machine the parts of Ray take longer to start than the half minute that it gives them."""
STARTED = "Ray runtime started."
HIDDEN = ("/tmp", "/var/tmp", "/dev/shm", str(ROOT / "tests"), str(ROOT / "pipelines"))
"""Folders over which each node has an empty file system of its own."""
UNSHARE = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
MOUNT = "for folder in $HIDDEN; do if [ -d $folder ]; then mount -t tmpfs tmpfs $folder || exit; fi; done; "
RAY_START = (sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats")
STORE_BYTES = 100_000_000


def obstacle() -> str:
    """Return why there can be no such nodes on this machine; empty if there can."""
    if not shutil.which(UNSHARE[0]):
        return "there is no unshare"
    needed = [Path(folder).resolve() for folder in (ROOT / "raysp", sys.prefix)]
    if any(folder.is_relative_to(hidden) for folder in needed for hidden in HIDDEN):
        return f"raysp or Python is in a folder that the nodes do not see: {', '.join(HIDDEN)}"
    command, environment = [*UNSHARE, "sh", "-c", MOUNT], {**os.environ, "HIDDEN": HIDDEN[0]}
    tried = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return f"unshare is not permitted: {tried.stderr.strip()}" if tried.returncode else ""


class Node:
    """A node, which starts when it is made.

    Args:
        command: command of its servers.
        said: file for its log.
        environment: environment variables.
        cpus: CPUs that Ray schedules on it.
    """

    def __init__(self, command: list[str], said: Path, environment: Mapping[str, str], cpus: int) -> None:
        self.cpus = cpus
        self._command, self._environment, self._said = command, environment, said
        self.start()

    def start(self) -> None:
        """Start its servers."""
        with self._said.open("wb") as log:
            self.process = subprocess.Popen(
                self._command, cwd="/", env=self._environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def wait_until_up(self) -> None:
        """Wait until Ray has started on the node."""
        deadline = time.monotonic() + START_SECONDS
        while STARTED not in (text := self._said.read_text(errors="replace")):
            assert time.monotonic() < deadline, f"the node did not start: {text[-3000:]}"
            if self.process.poll() is not None:  # it has ended by itself
                self.start()
            time.sleep(0.1)

    def sees(self, path: Path) -> bool:
        """Return whether a path exists on the node, which is up."""
        [init] = psutil.Process(self.process.pid).children()
        return Path(f"/proc/{init.pid}/root{path}").exists()

    def kill(self) -> None:
        """End all its processes at once: with the first process of a namespace the kernel ends the others."""
        processes = [self.process]
        with contextlib.suppress(psutil.NoSuchProcess):
            processes += psutil.Process(self.process.pid).children(recursive=True)
        for one in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        self.process.wait()


class Cluster:
    """A cluster whose nodes can be killed; others take their place without a file.

    Args:
        folder: folder for logs and the files of the head; each isolated node has another one of this name.
        environment: environment variables of all nodes and of drivers.
        is_isolated: whether its nodes share no file.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str], *, is_isolated: bool) -> None:
        self.environment, self._is_isolated = environment, is_isolated
        self.nodes: list[Node] = []
        self._folder = folder
        self._numbers = itertools.count(2)
        port = free_port()
        self.address = f"{_network_address(1)}:{port}"
        head = ["--head", "--port", str(port), "--temp-dir", str(folder), "--include-dashboard", "false"]
        self._head = Node([*RAY_START, *head, *_options(1, cpus=0)], folder / "1.log", environment, cpus=0)

    def add(self, *, cpus: int) -> Node:
        """Start a node, without waiting for it."""
        number = next(self._numbers)
        start = [*RAY_START, "--address", self.address, "--include-log-monitor", "false"]
        command = [*start, *_options(number, cpus)]
        environment = {**self.environment, "HIDDEN": " ".join(HIDDEN)}
        if self._is_isolated:
            command = [*UNSHARE, "sh", "-c", f'{MOUNT} exec "$@"', "node", *command]
            environment["HOME"] = "/tmp"
        node = Node(command, self._folder / f"{number}.log", environment, cpus)
        self.nodes.append(node)
        return node

    def kill_a_node(self) -> None:
        """Kill the oldest node; another one takes its place."""
        killed = self.nodes.pop(0)
        killed.kill()
        self.add(cpus=killed.cpus).wait_until_up()

    def wait_until_up(self) -> None:
        """Wait until the head is up, and all nodes."""
        for node in (self._head, *self.nodes):
            node.wait_until_up()

    def end(self) -> None:
        """Kill all nodes, and the head."""
        for node in (*self.nodes, self._head):
            node.kill()


@contextlib.contextmanager
def small_cluster(num_nodes: int, *, is_isolated: bool = False) -> Iterator[Cluster]:
    """Start a head without CPUs and some worker nodes of two; all end with the block."""
    # The name is short: Ray listens on sockets of the file system inside it.
    with tempfile.TemporaryDirectory(prefix="raysp-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        cluster = Cluster(Path(folder), {**os.environ, **NO_TOKENS}, is_isolated=is_isolated)
        try:
            cluster.wait_until_up()
            for _ in range(num_nodes):  # one after the other: they choose the names of their sockets in one folder
                cluster.add(cpus=2).wait_until_up()
            yield cluster
        finally:
            cluster.end()


NO_TOKENS = {
    "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}",
    "PYTHONPATH": str(ROOT),
    "OMP_NUM_THREADS": "1",
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # as raysp's own Ray: beside other programs the workers would starve
    "RAY_enable_metrics_collection": "0",  # as raysp's own Ray
    **PATIENT,
    "RAY_raylet_start_wait_time_s": str(RAYLET_SECONDS),
}


def _network_address(number: int) -> str:
    """Return an address on loopback, other than 127.0.0.1, for which Ray takes the outward one."""
    return f"127.0.1.{number}"


def _options(number: int, cpus: int) -> list[str]:
    """Return Ray's options of every node; workers choose their ports, as all nodes share the network."""
    options = ["--node-ip-address", _network_address(number), "--num-cpus", str(cpus)]
    options += ["--object-store-memory", str(STORE_BYTES), "--min-worker-port", "0", "--max-worker-port", "0"]
    return [*options, "--dashboard-agent-listen-port", "0"]
