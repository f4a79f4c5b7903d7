"""A Ray cluster of several nodes on this machine: `python -m tests.labelling.engine.cluster_host 2`.

It says its address, then for each line `kill` that it reads kills the raylet of its oldest worker node, starts another
node in its place, and says so. It ends with its standard input.
"""

import contextlib
import os
import signal
import sys

CPUS = 2


def main(num_nodes: int) -> None:
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    nodes = [add_node(cluster) for _ in range(num_nodes)]
    say(f"address {cluster.address}")
    try:
        for line in sys.stdin:
            if line.strip() == "kill":
                oldest = nodes.pop(0)
                raylet = oldest.all_processes["raylet"][0].process
                os.kill(raylet.pid, signal.SIGKILL)
                cluster.remove_node(oldest, allow_graceful=False)
                nodes.append(add_node(cluster))
                say(f"killed {raylet.pid}")
    finally:
        cluster.shutdown()


def add_node(cluster):
    """Start a node; on a busy machine Ray may give up on it once or twice."""
    for _ in range(2):
        with contextlib.suppress(Exception):
            return cluster.add_node(num_cpus=CPUS)
    return cluster.add_node(num_cpus=CPUS)


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]))
