"""Starts and losses of model actors, as the pool of Ray Data shows them, for the event log."""

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from raysp.labelling.engine.run_events import RunEvents

LOOK_SECONDS = 0.1
"""Least time between two looks; Ray needs longer to restart an actor."""


class Actor(NamedTuple):
    """An actor of the pool."""

    node: str
    is_restarting: bool


class ActorWatch:
    """Adds events when actors start, are lost, or are released.

    Args:
        events: event log of the run.
        clock: monotonic clock.
    """

    def __init__(self, events: RunEvents, clock: Callable[[], float] = time.monotonic) -> None:
        self._events = events
        self._clock = clock
        self._looked = float("-inf")
        self._known: dict[str, str] = {}
        """Nodes of working actors, by the id of the actor."""

    def look(self, actors: Mapping[str, Actor]) -> None:
        """Compare the pool with the last look, unless that was just now."""
        if self._clock() - self._looked < LOOK_SECONDS:
            return
        self._looked = self._clock()
        for name, node in list(self._known.items()):
            if name not in actors:
                del self._known[name]
                self._events.actor_released(name, node)
            elif actors[name].is_restarting:
                del self._known[name]
                self._events.actor_lost(name, node)
        for name, actor in actors.items():
            if name not in self._known and not actor.is_restarting:
                self._known[name] = actor.node
                self._events.actor_started(name, actor.node)
