"""Failed model loads of actors: a run continues while other actors can load the model, and ends if no actor can.

An actor whose load failed is replaced, and Ray would often start the next one on the same node, which now has room. So
the next ones start on other nodes, as long as there are any that can take them and on which no load has failed.
"""

import logging
import re
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING

from raysp.cluster.waiting import Amounts, fits

if TYPE_CHECKING:
    from ray.data import DataContext
    from ray.data._internal.execution.operators.actor_pool_map_operator import ActorPoolMapOperator

logger = logging.getLogger(__name__)

MORE_LOADS = 1
"""Consecutive failed loads beyond one per actor of the pool that end a run in which no actor has loaded its model."""
NODE_LABEL = "ray.io/node-id"
"""Label that Ray gives to every node."""


class FailedNodes:
    """Nodes on which the model of a run could not be loaded.

    Args:
        failed: returns these nodes, as reported by workers.
        totals: returns the resources of the nodes that are alive.
        actor: request of a model actor.
    """

    def __init__(
        self, failed: Callable[[], Collection[str]], totals: Callable[[], Mapping[str, Amounts]], actor: Amounts
    ) -> None:
        self._failed = failed
        self._totals = totals
        self._actor = actor
        self._known: frozenset[str] = frozenset()

    def learn(self) -> bool:
        """Read the reports, and return whether there is a new node, while another one may load the model."""
        known, self._known = self._known, frozenset(self._failed())
        return bool(self._known - known) and bool(self.avoided())

    def avoided(self) -> frozenset[str]:
        """Return the nodes on which no actor starts; none if no other node can take an actor."""
        others = (total for node, total in self._totals().items() if node not in self._known) if self._known else ()
        return self._known if any(fits(self._actor, total) for total in others) else frozenset()

    def options(self) -> dict[str, object]:
        """Return the options of Ray for the next actor."""
        avoided = self.avoided()
        return {"label_selector": {NODE_LABEL: f"!in({','.join(sorted(avoided))})"}} if avoided else {}


def allow_failures(context: "DataContext", actors: int) -> None:
    """Set how many failed actors Ray Data replaces before it ends the plan with the last error."""
    context.max_consecutive_actor_init_deaths = actors + MORE_LOADS


def watch_loads(
    operator: "ActorPoolMapOperator",
    nodes: FailedNodes | None = None,
    on_failure: Callable[[str], None] | None = None,
) -> None:
    """Log each failed load of an operator's actors, and start the next ones on other nodes.

    The count of failed loads restarts while an actor is running, and at each node that fails while others are left.

    Args:
        operator: operator of a starting Ray Data plan.
        nodes: nodes on which loads failed; None: not known.
        on_failure: also called with the reason of each failed load.
    """
    count = operator._on_actor_init_death

    def on_crash(error: Exception) -> None:
        reason = cause(error)
        logger.warning("a model actor failed to start; starting another one: %s", reason)
        if on_failure:
            on_failure(reason)
        if operator._actor_pool.num_running_actors() or (nodes and nodes.learn()):
            # Before `count`, which ends the plan when the limit is exceeded.
            operator._consecutive_actor_init_deaths = 0
        count(error)

    operator._on_actor_init_death = on_crash  # type: ignore[method-assign]
    if nodes:
        operator._ray_remote_args_fn = nodes.options


def cause(error: BaseException) -> str:
    """Return the reason of an error that Ray has wrapped, in one line: the last error in its report."""
    named = re.findall(r"^(?:\w+\.)*(\w+(?:Error|Exception|Died\w*|Failed\w*): .+)$", str(error), re.MULTILINE)
    reasons = [line for line in named if not line.startswith(("UserCodeException", "RayTaskError"))]
    return reasons[-1] if reasons else f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"
