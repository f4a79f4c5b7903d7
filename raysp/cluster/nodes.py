"""Live nodes of the cluster: Ray itself detects the loss of a node only after half a minute."""

import logging
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ParamSpec, TypeAlias, TypeVar, cast

from raysp.cluster.addresses import is_connected

logger = logging.getLogger(__name__)

ANSWER_SECONDS = 5.0
TASK_SECONDS = 60.0
"""Time after which a node that does not answer a task is passed over: it may be busy or shutting down."""

Node: TypeAlias = dict[str, Any]
"""A node as Ray lists it."""
Amounts: TypeAlias = Mapping[str, float]
"""Amounts of resources by their names."""
Given = ParamSpec("Given")
Answer = TypeVar("Answer")


def up() -> list[Node]:
    """Return the nodes that Ray reports as alive."""
    import ray

    return [node for node in cast("Any", ray).nodes() if node["Alive"]]


def alive(node_ids: Iterable[str]) -> set[str]:
    """Return the nodes that Ray reports as alive and whose raylet accepts connections; all if Ray does not answer."""
    try:
        known = {str(node["NodeID"]): node for node in up()}
    except Exception as error:  # types of Ray's errors vary
        logger.warning("Ray did not list the nodes of the cluster: %s", error)
        return set(node_ids)
    return {node_id for node_id in node_ids if node_id in known and _answers(known[node_id])}


def totals() -> dict[str, Amounts]:
    """Return the resources of the nodes that are alive, in use or not, by the node's id."""
    return {node["NodeID"]: node["Resources"] for node in up()}


def own_id() -> str:
    """Return the id of this process's node; a restarted node has a new id."""
    import ray

    return str(ray.get_runtime_context().get_node_id())


def with_resource(name: str) -> list[Node]:
    """Return the nodes that Ray reports as alive and that have a resource, such as "CPU"; none without a cluster."""
    return [node for node in up() if node["Resources"].get(name, 0) > 0] if is_connected() else []


def ask(
    nodes: Sequence[Node], function: Callable[Given, Answer], *args: Given.args, **kwargs: Given.kwargs
) -> list[Answer | None]:
    """Call a function on nodes, at once and beside all other work, and return its results.

    None: the node did not answer within `TASK_SECONDS`, or the function failed there.
    """
    import ray

    if not nodes:
        return []
    task = ray.remote(cast("Any", function))
    placed = [task.options(num_cpus=0, scheduling_strategy=on_node(node["NodeID"])) for node in nodes]
    answers = [one.remote(*args, **kwargs) for one in placed]
    ready, _ = ray.wait(answers, num_returns=len(answers), timeout=TASK_SECONDS)
    return [_result(one) if one in ready else None for one in answers]


def on_node(node_id: str) -> object:
    """Return the scheduling strategy of tasks and actors that run on one node."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node_id, soft=False)


def _result(answer: Any) -> Any:  # noqa: ANN401 - a reference of Ray
    import ray

    try:
        return ray.get(answer)
    except ray.exceptions.RayError as error:
        logger.warning("a node did not answer: %s", error)
        return None


def _answers(node: Node) -> bool:
    try:
        place = node["NodeManagerAddress"], node["NodeManagerPort"]
        with socket.create_connection(place, timeout=ANSWER_SECONDS):
            return True
    except OSError:
        return False
