"""Tasks of the connected Ray: a function over many items."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar, cast

from raysp import tracebacks
from raysp.cluster.resources import totals
from raysp.errors import RunError

Shared = TypeVar("Shared")
Item = TypeVar("Item")
Result = TypeVar("Result")

AHEAD = 16
"""Tasks that wait besides those that run: an autoscaler starts nodes for them."""
WAIT_SECONDS = 0.2
"""Longest wait for Ray: no signal handler runs meanwhile."""


def map_tasks(
    function: Callable[[Shared, Item], Result], shared: Shared, items: Sequence[Item]
) -> Iterator[tuple[Item, Result]]:
    """Yield the result of a function for each item, as they are finished by tasks of one CPU each.

    Args:
        function: function of a module of raysp.
        shared: its first argument, which each node receives once.
        items: its second arguments.

    Raises:
        RunError: Ray failed, or a task's process ended several times.
    """
    import ray

    task = ray.remote(cast("Any", function)).options(num_cpus=1, scheduling_strategy="SPREAD")
    first, waiting = ray.put(shared), deque(items)
    in_flight: dict[Any, Item] = {}
    try:
        while waiting or in_flight:
            cpus = sum(total.get("CPU", 0.0) for total in totals().values())
            while waiting and len(in_flight) < cpus + AHEAD:
                item = waiting.popleft()
                in_flight[task.remote(first, item)] = item
            for ref in ray.wait([*in_flight], timeout=WAIT_SECONDS)[0]:
                result = ray.get(ref)
                yield in_flight.pop(ref), result
    except ray.exceptions.RayError as error:
        reason = tracebacks.described(error)
        raise RunError(f"a task of the cluster failed: {reason}; run the same command again to go on") from error
    finally:
        for ref in in_flight:
            ray.cancel(ref, force=True)
