"""Check before any work that all machines of a cluster see the same sink."""

import time
from typing import Any, cast

import ray

from raysp.errors import PlanError, StoreError
from raysp.sink import layout
from raysp.sink.sinks import Sink
from raysp.specs.pipeline import Parquet
from raysp.storage.store import Store
from raysp.words import count

MOST_NODES = 8
"""Largest number of nodes checked, spread evenly over the cluster."""
ANSWER_SECONDS = 60.0
"""Time after which a node that does not answer is ignored: it may be busy or shutting down."""
APPEAR_SECONDS = 3.0
"""Time within which a file written on one machine must appear on the others."""


def check_shared(store: Store, sink: Parquet) -> None:
    """Raise PlanError unless workers see the files that this process writes into a sink.

    Raises:
        PlanError: some nodes do not see them; the message has their number and the first one's reason.
    """
    nodes = _nodes()
    path = f"{layout.TMP}{time.time_ns():x}-seen"
    store.create(path, b"raysp asks whether its workers see what its driver writes\n")
    try:
        task = ray.remote(cast("Any", _look))
        given = (sink.url, dict(sink.storage_options), path)
        answers = [task.options(num_cpus=0, scheduling_strategy=_on(node["NodeID"])).remote(*given) for node in nodes]
        reasons = [(node["NodeManagerAddress"], _wait(answer)) for node, answer in zip(nodes, answers, strict=True)]
    finally:
        store.delete(path)
    if blind := [(node, reason) for node, reason in reasons if reason]:
        node, reason = blind[0]
        raise PlanError(
            f"sink.url: {len(blind)} of {count(len(nodes), 'node')} of the cluster cannot see the files that this "
            f"process writes to {sink.url!r}; on {node}: {reason}. Use a location that all machines share: a file "
            "system mounted at the same path everywhere, or an object store (s3://...)"
        )


def _nodes() -> list[dict[str, Any]]:
    """Return up to `MOST_NODES` nodes on which workers can run now; empty while the cluster is scaled to zero."""
    nodes = [node for node in cast("Any", ray).nodes() if node["Alive"] and node["Resources"].get("CPU", 0) > 0]
    return nodes[:: -(-len(nodes) // MOST_NODES)] if nodes else []


def _on(node_id: str) -> object:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node_id, soft=False)


def _look(url: str, storage_options: dict[str, object], path: str) -> str:
    """Look for a file on a worker, and return why it is missing; empty if it exists."""
    deadline = time.monotonic() + APPEAR_SECONDS
    while True:
        try:
            if (store := Sink.open(url, storage_options).store).stat(path) is not None:
                return ""
            reason = f"{store.url}: no such file"
        except StoreError as error:
            reason = str(error)
        if time.monotonic() > deadline:
            return reason
        time.sleep(0.2)


def _wait(answer: object) -> str:
    try:
        return str(ray.get(cast("ray.ObjectRef[str]", answer), timeout=ANSWER_SECONDS))
    except ray.exceptions.RayError:  # ignored: the node may have ended
        return ""
