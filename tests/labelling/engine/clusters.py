"""Ray clusters of several nodes on this machine, for tests that kill parts of them."""

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

ROOT = Path(__file__).parents[3]
NO_TOKENS = {
    **os.environ,
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # as raysp's own Ray: beside other programs the workers would starve
}


class SmallCluster:
    """A cluster whose worker nodes can be killed."""

    def __init__(self, host: subprocess.Popen, said: IO[str]) -> None:
        self.host = host
        self.said = said
        self.address = self._expect("address")

    def kill_a_node(self) -> None:
        """Kill the raylet of the oldest worker node, and its workers with it; another node takes its place."""
        self.host.stdin.write("kill\n")
        self.host.stdin.flush()
        self._expect("killed")

    def _expect(self, word: str) -> str:
        for line in self.host.stdout:
            if line.startswith(f"{word} "):
                return line.split()[1]
        self.said.seek(0)
        raise AssertionError(f"the cluster ended before it said {word!r}: {self.said.read()[-3000:]}")


@contextlib.contextmanager
def small_cluster(num_nodes: int) -> Iterator[SmallCluster]:
    """Start a head without CPUs and some worker nodes of two; all end with the block."""
    with tempfile.TemporaryFile("w+") as said:
        host = subprocess.Popen(
            [sys.executable, "-m", "tests.labelling.engine.cluster_host", str(num_nodes)],
            cwd=ROOT,
            env={**os.environ, **NO_TOKENS},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
        )
        try:
            yield SmallCluster(host, said)
        finally:
            host.stdin.close()
            host.wait(timeout=120)
