"""Who dies over what: Ray repeats the work of a worker that died for ever, so somebody has to count.

A worker says what it begins and what it has ended. What was begun several times and never ended has killed its
workers (a crash in native code, the memory monitor, the watchdog), and is not begun again. What began on a node that is
gone since does not count: the node took its workers with it.
"""

import logging
import os
import time
from collections.abc import Callable, Iterable
from typing import Any

from raysp.engine import nodes

logger = logging.getLogger(__name__)

MAX_DEATHS = 3
"""Of workers over one piece, block or load of a model, before something else is done about it."""
HANG_SECONDS = 900.0
"""After which a block, meant to take some ten seconds, has hung."""
HANG_VARIABLE = "RAYSP_HANG_SECONDS"
"""For models that need longer than that for a block, and for tests."""
ASK_SECONDS = 60
SETTLE_SECONDS = 5.0
"""Before work is held to be deadly: a node that is taken away may answer for a moment longer than its workers."""


class Ledger:
    """Count what was begun and not ended; one small actor a run.

    Args:
        living: returns which of some nodes live.
    """

    def __init__(self, living: Callable[[Iterable[str]], set[str]] = nodes.living) -> None:
        self.living = living
        self.open: dict[str, list[str]] = {}
        """The nodes on which work began that has not ended."""
        self.places: dict[str, dict[str, int]] = {}
        self.reports = 0
        """Of workers, of whatever kind."""

    def activity(self) -> tuple[int, int]:
        """Return how often workers have reported something, and how much they have begun and not ended."""
        return self.reports, sum(map(bool, self.open.values()))

    def begin(self, work: str, node: str) -> int:
        """Note that work begins on a node; returns how often it had begun before without an end."""
        self.reports += 1
        before = self.deaths(work)
        self.open.setdefault(work, []).append(node)
        return before

    def deaths(self, work: str) -> int:
        """Count how often work began without an end on nodes that live; the others are forgotten."""
        if not (begun := self.open.get(work)):
            return 0
        alive = self.living(set(begun))
        begun[:] = [node for node in begun if node in alive]
        return len(begun)

    def end(self, work: str) -> None:
        """Note that it has ended, however."""
        self.reports += 1
        self.open.pop(work, None)
        self.places.pop(work, None)

    def reach(self, task: str, part: str, places: int) -> None:
        """Note how much of a part of a task is out."""
        self.reports += 1
        parts = self.places.setdefault(task, {})
        parts[part] = max(places, parts.get(part, 0))

    def reached(self, task: str, part: str) -> int:
        """Give the most of a part that was ever out."""
        return self.places.get(task, {}).get(part, 0)


class Attempts:
    """A worker's or the driver's way to the ledger; a copy of it travels with the job."""

    def __init__(self) -> None:
        import ray

        here = ray.get_runtime_context().get_node_id()
        strategy = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(here, soft=True)
        options = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1, "scheduling_strategy": strategy}
        self.ledger: Any = ray.remote(Ledger).options(**options).remote()

    def begin(self, work: str) -> int:
        """Say that work begins; returns the number of workers that died over it, so far as is known."""
        deaths = self._ask("begin", work, nodes.here())
        if deaths >= MAX_DEATHS:
            time.sleep(SETTLE_SECONDS)
            deaths = max(0, self._ask("deaths", work) - 1)  # this one lives
        return deaths

    def deaths(self, work: str) -> int:
        """Count the workers that died over work that none is at."""
        return self._ask("deaths", work)

    def end(self, work: str) -> None:
        """Say that it has ended; does not wait."""
        self.ledger.end.remote(work)

    def reach(self, task: str, part: str, places: int) -> None:
        """Say how many blocks of a part of a task are out; does not wait."""
        self.ledger.reach.remote(task, part, places)

    def reached(self, task: str, part: str) -> int:
        """Give the most blocks of a part that were ever out."""
        return self._ask("reached", task, part)

    def activity(self) -> tuple[int, int]:
        """Return how often workers have reported something, and how much they are at; (-1, 0) if it is not known."""
        import ray

        try:
            reports, num_open = ray.get(self.ledger.activity.remote(), timeout=ASK_SECONDS)
        except ray.exceptions.RayError as error:
            logger.warning("the ledger of attempts does not answer: %s", error)
            return -1, 0
        return int(reports), int(num_open)

    def close(self) -> None:
        """End the ledger; a caller's Ray would keep it as long as the program runs."""
        import ray

        ray.kill(self.ledger)

    @staticmethod
    def actor_id() -> str:
        """Name the actor that asks; the same when it has been started anew."""
        import ray

        return str(ray.get_runtime_context().get_actor_id())

    def _ask(self, method: str, *arguments: str) -> int:
        import ray

        try:
            return int(ray.get(getattr(self.ledger, method).remote(*arguments), timeout=ASK_SECONDS))
        except ray.exceptions.RayError as error:  # the node that held it is gone: the count begins again
            logger.warning("the ledger of attempts does not answer: %s", error)
            return 0


def hang_seconds() -> float:
    """Give the seconds after which what a worker does has hung."""
    return float(os.environ.get(HANG_VARIABLE) or HANG_SECONDS)
