"""A head of Ray with dashboard and token authentication on this machine, as a cluster has it."""

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.cluster.nodes import PATIENT, START_SECONDS
from tests.s3_servers import free_port

CPUS = 3
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Keeps Ray's servers on 127.0.0.1, and its clients from taking that for the outward address (docs/decisions/002)."""


@dataclass(frozen=True)
class RealHead:
    """Addresses of a head, its token, and the folder of its logs."""

    url: str
    gcs: str
    token: str
    folder: Path
    metrics: str
    """Url of the metrics of its node."""

    @property
    def environment(self) -> dict[str, str]:
        """Environment of a client of this cluster."""
        return {**clean(), **LOOPBACK, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token}


def clean() -> dict[str, str]:
    """Return this process's environment without what belongs to other clusters or to object storage."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "AWS_"))}


@contextlib.contextmanager
def real_head(variables: Mapping[str, str]) -> Iterator[RealHead]:
    """Start a head on loopback, on ports and in a folder of its own; all its processes end with the block.

    Args:
        variables: environment variables of its node, as a Kubernetes Secret sets them.
    """
    gcs, dashboard, token = free_port(), free_port(), os.urandom(32).hex()
    # The name is short: Ray listens on sockets of the file system inside it.
    with tempfile.TemporaryDirectory(prefix="raysp-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        environment = {
            **clean(),
            **variables,
            "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": token,
            **LOOPBACK,
            "RAY_worker_niceness": "0",
            **PATIENT,
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        ports = {
            "port": gcs,
            "dashboard-port": dashboard,
            "dashboard-agent-listen-port": free_port(),
            "dashboard-agent-grpc-port": free_port(),
            "metrics-export-port": free_port(),
            "ray-client-server-port": free_port(),
        }
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats"]
        command += ["--node-ip-address", "127.0.0.1", "--dashboard-host", "127.0.0.1", "--temp-dir", folder]
        command += ["--num-cpus", str(CPUS), "--object-store-memory", "100000000"]
        command += [word for name, port in ports.items() for word in (f"--{name}", str(port))]
        with tempfile.TemporaryFile("w+") as said:
            url, client = f"http://127.0.0.1:{dashboard}", ports["ray-client-server-port"]
            head = subprocess.Popen(command, env=environment, stdout=said, stderr=said)
            try:
                if not _comes_up(url, token, client, head):
                    # Its client server gives up after 30 seconds and ends it; the second start finds files in memory.
                    head = subprocess.Popen(command, env=environment, stdout=said, stderr=said)
                    assert _comes_up(url, token, client, head), "the head ended while it started"
                metrics = f"http://127.0.0.1:{ports['metrics-export-port']}/metrics"
                yield RealHead(url, f"127.0.0.1:{gcs}", token, Path(folder), metrics)
            finally:
                is_up = head.poll() is None
                _end(head.pid)
                head.wait(60)
                if not is_up:
                    said.seek(0)
                    raise AssertionError(f"the head ended by itself: {said.read()[-3000:]}")


def _comes_up(url: str, token: str, client_port: int, head: subprocess.Popen) -> bool:
    """Wait until the head answers, and return False if it ends before."""
    request = urllib.request.Request(f"{url}/api/jobs/", headers={"Authorization": f"Bearer {token}"})
    deadline = time.monotonic() + START_SECONDS
    while head.poll() is None:
        try:
            urllib.request.urlopen(request, timeout=5).close()
            socket.create_connection(("127.0.0.1", client_port), timeout=5).close()
            return True
        except OSError:
            assert time.monotonic() < deadline, "the head did not come up"
            time.sleep(0.2)
    return False


def _end(pid: int) -> None:
    """End a process and all that it started, by their ids."""
    with contextlib.suppress(psutil.NoSuchProcess):
        head = psutil.Process(pid)
        ended = [head, *head.children(recursive=True)]
        for process in ended:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(ended, timeout=30)
