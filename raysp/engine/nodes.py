"""Which nodes of the cluster live: Ray itself notices the loss of one only after half a minute."""

import logging
import socket
from collections.abc import Iterable

logger = logging.getLogger(__name__)

ANSWER_SECONDS = 5.0


def living(node_ids: Iterable[str]) -> set[str]:
    """Return those nodes that Ray knows to live and whose raylet takes connections; all of them if Ray does not say."""
    import ray

    try:
        found = ray.nodes()  # type: ignore[no-untyped-call]
        known = {str(node["NodeID"]): node for node in found if node["Alive"]}
    except Exception as error:  # Ray's own error types differ by where it fails
        logger.warning("Ray does not say which nodes live: %s", error)
        return set(node_ids)
    return {one for one in node_ids if one in known and _answers(known[one])}


def here() -> str:
    """Return the id of this process's node; a node that is started again has another one."""
    import ray

    return str(ray.get_runtime_context().get_node_id())


def _answers(node: dict[str, object]) -> bool:
    address = (str(node["NodeManagerAddress"]), int(str(node["NodeManagerPort"])))
    try:
        with socket.create_connection(address, timeout=ANSWER_SECONDS):
            return True
    except OSError:
        return False
