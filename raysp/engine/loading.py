"""Actors that cannot load their model: the run goes on while others can, and ends when none can."""

import logging
import time
from typing import TYPE_CHECKING

from raysp.errors import RunError

if TYPE_CHECKING:
    from ray.data import DataContext
    from ray.data._internal.execution.operators.actor_pool_map_operator import ActorPoolMapOperator

    from raysp.engine.attempts import Attempts

logger = logging.getLogger(__name__)

MORE_LOADS = 1
"""Failed loads in a row, beyond one an actor of the pool, before a run ends of which no actor has loaded its model."""
PAUSE_SECONDS = 30.0
"""Before an actor whose load failed gives its place back, while others work: the next one may get the same GPU."""
LOADS, LOADED = "loads", "loaded"


def allow_failures(context: "DataContext", actors: int) -> None:
    """Let Ray Data replace so many actors that cannot start before it ends the plan with the reason of the last."""
    context.max_consecutive_actor_init_deaths = actors + MORE_LOADS


def watch_loads(operator: "ActorPoolMapOperator") -> None:
    """Log each failed load of an operator's actors, and count none against the run while an actor has its model.

    Args:
        operator: of a plan of Ray Data that starts.
    """
    from raysp.engine.stream import cause

    count = operator._on_actor_init_death

    def on_death(error: Exception) -> None:
        logger.warning("a model actor could not start, and another one is started: %s", cause(error))
        if operator._actor_pool.num_running_actors():
            operator._consecutive_actor_init_deaths = 0
        count(error)

    operator._on_actor_init_death = on_death  # type: ignore[method-assign]


def loaded(attempts: "Attempts") -> None:
    """Note that an actor of this run has loaded its model."""
    attempts.reach(LOADS, LOADED, 1)


def failed(attempts: "Attempts", node: str, error: Exception) -> RunError:
    """Return the error of a load with the node that it failed on, after a pause if other actors can load."""
    if attempts.reached(LOADS, LOADED):
        time.sleep(PAUSE_SECONDS)
    return RunError(f"node {node}: {type(error).__name__}: {error}")
