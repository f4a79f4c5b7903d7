"""Failed model loads of actors: a run continues while other actors can load the model, and ends if no actor can."""

import logging
import time
from typing import TYPE_CHECKING

from raysp.errors import RunError

if TYPE_CHECKING:
    from ray.data import DataContext
    from ray.data._internal.execution.operators.actor_pool_map_operator import ActorPoolMapOperator

    from raysp.engine.workers.attempts import Attempts

logger = logging.getLogger(__name__)

MORE_LOADS = 1
"""Consecutive failed loads beyond one per actor of the pool that end a run in which no actor has loaded its model."""
PAUSE_SECONDS = 30.0
"""Pause before an actor whose load failed frees its slot, while others work: the next one may get the same GPU."""
LOADS, LOADED = "loads", "loaded"


def allow_failures(context: "DataContext", actors: int) -> None:
    """Set how many failed actors Ray Data replaces before it ends the plan with the last error."""
    context.max_consecutive_actor_init_deaths = actors + MORE_LOADS


def watch_loads(operator: "ActorPoolMapOperator") -> None:
    """Log each failed load of an operator's actors, and reset their count while an actor is running.

    Args:
        operator: operator of a starting Ray Data plan.
    """
    from raysp.engine.on_ray.stream import cause

    count = operator._on_actor_init_death

    def on_crash(error: Exception) -> None:
        logger.warning("a model actor failed to start; starting another one: %s", cause(error))
        if operator._actor_pool.num_running_actors():
            operator._consecutive_actor_init_deaths = 0
        count(error)

    operator._on_actor_init_death = on_crash  # type: ignore[method-assign]


def loaded(attempts: "Attempts") -> None:
    """Record that an actor of this run has loaded its model."""
    attempts.reach(LOADS, LOADED, 1)


def failed(attempts: "Attempts", node: str, error: Exception) -> RunError:
    """Return the error of a failed load with its node, after a pause if another actor has loaded the model."""
    if attempts.reached(LOADS, LOADED):
        time.sleep(PAUSE_SECONDS)
    return RunError(f"node {node}: {type(error).__name__}: {error}")
