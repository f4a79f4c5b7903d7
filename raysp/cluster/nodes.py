"""Live nodes of the cluster: Ray itself detects the loss of a node only after half a minute."""

import logging
import socket
from collections.abc import Iterable

logger = logging.getLogger(__name__)

ANSWER_SECONDS = 5.0


def alive(node_ids: Iterable[str]) -> set[str]:
    """Return the nodes that Ray reports as alive and whose raylet accepts connections; all if Ray does not answer."""
    import ray

    try:
        found = ray.nodes()  # type: ignore[no-untyped-call]
        known = {str(node["NodeID"]): node for node in found if node["Alive"]}
    except Exception as error:  # types of Ray's errors vary
        logger.warning("Ray did not list the nodes of the cluster: %s", error)
        return set(node_ids)
    return {one for one in node_ids if one in known and _answers(known[one])}


def own_id() -> str:
    """Return the id of this process's node; a restarted node has a new id."""
    import ray

    return str(ray.get_runtime_context().get_node_id())


def on_node(node_id: str) -> object:
    """Return the scheduling strategy of tasks and actors that run on one node."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node_id, soft=False)


def _answers(node: dict[str, object]) -> bool:
    address = (str(node["NodeManagerAddress"]), int(str(node["NodeManagerPort"])))
    try:
        with socket.create_connection(address, timeout=ANSWER_SECONDS):
            return True
    except OSError:
        return False
