"""Count of crashes per unit of work. Ray retries crashed work indefinitely.

A worker reports the start and the end of each unit of work. A unit that was started several times and never ended has
crashed its workers (a crash in native code, the memory monitor, the watchdog) and is not started again. Starts on a
node that has been lost do not count: its workers ended with the node.
"""

import logging
import time
from collections.abc import Callable, Iterable
from typing import Any

from raysp.cluster import nodes
from raysp.labelling.engine.workers.attempts import MAX_CRASHES, Attempts

logger = logging.getLogger(__name__)

ASK_SECONDS = 60
SETTLE_SECONDS = 5.0
"""Wait before work is judged to crash workers: a node being removed may answer slightly longer than its workers."""
FAILED_LOADS = "failed loads"
"""Name under which the ledger keeps the nodes on which a model could not be loaded."""


class Ledger:
    """Counts of work that was started and has not ended; one small actor per run.

    Args:
        alive: returns the given nodes that are alive.
    """

    def __init__(self, alive: Callable[[Iterable[str]], set[str]] = nodes.alive) -> None:
        self.alive = alive
        self.open: dict[str, list[str]] = {}
        """Nodes on which unfinished work started, by the name of the work."""
        self.places: dict[str, dict[str, int]] = {}
        self.reports = 0
        """Number of reports of any kind from workers."""

    def activity(self) -> tuple[int, int]:
        """Return the number of reports from workers, and the number of unfinished units of work."""
        return self.reports, sum(map(bool, self.open.values()))

    def begin(self, work: str, node: str) -> int:
        """Record a start of work on a node, and return the number of earlier starts without an end."""
        self.reports += 1
        before = self.crashes(work)
        self.open.setdefault(work, []).append(node)
        return before

    def crashes(self, work: str) -> int:
        """Return the number of starts without an end on nodes that are alive; other starts are dropped."""
        if not (begun := self.open.get(work)):
            return 0
        alive = self.alive(set(begun))
        begun[:] = [node for node in begun if node in alive]
        return len(begun)

    def end(self, work: str) -> None:
        """Record the end of work, successful or not."""
        self.reports += 1
        self.open.pop(work, None)
        self.places.pop(work, None)

    def reach(self, task: str, part: str, places: int) -> None:
        """Record the number of blocks of a part of a task that were yielded."""
        self.reports += 1
        parts = self.places.setdefault(task, {})
        parts[part] = max(places, parts.get(part, 0))

    def reached(self, task: str, part: str) -> int:
        """Return the largest number of blocks of a part that was ever yielded."""
        return self.places.get(task, {}).get(part, 0)

    def parts(self, task: str) -> list[str]:
        """Return the parts of a task of which anything was reported."""
        return list(self.places.get(task, ()))


class CountedAttempts(Attempts):
    """Client of the ledger for workers and the driver; a copy is pickled with the job."""

    def __init__(self) -> None:
        import ray

        here = ray.get_runtime_context().get_node_id()
        strategy = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(here, soft=True)
        options = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1, "scheduling_strategy": strategy}
        self.ledger: Any = ray.remote(Ledger).options(**options).remote()

    def begin(self, work: str) -> int:
        """Report a start of work, and return the known number of workers that crashed on it."""
        crashes = self._ask("begin", work, nodes.own_id())
        if crashes >= MAX_CRASHES:
            # A node that is being removed may still answer; starts on it are dropped afterwards.
            time.sleep(SETTLE_SECONDS)
            crashes = max(0, self._ask("crashes", work) - 1)  # minus the start just reported
        return crashes

    def crashes(self, work: str) -> int:
        """Return the number of workers that crashed on work that no worker is doing now."""
        return self._ask("crashes", work)

    def end(self, work: str) -> None:
        """Report the end of work, without waiting."""
        self.ledger.end.remote(work)

    def reach(self, task: str, part: str, places: int) -> None:
        """Report the number of blocks of a part of a task that were yielded, without waiting."""
        self.ledger.reach.remote(task, part, places)

    def reached(self, task: str, part: str) -> int:
        """Return the largest number of blocks of a part that was ever yielded."""
        return self._ask("reached", task, part)

    def load_failed(self) -> None:
        """Report that the model of this run could not be loaded on the caller's node, without waiting."""
        self.ledger.reach.remote(FAILED_LOADS, nodes.own_id(), 1)

    def nodes_without_model(self) -> frozenset[str]:
        """Return the nodes on which the model of this run could not be loaded."""
        import ray

        try:
            return frozenset(ray.get(self.ledger.parts.remote(FAILED_LOADS), timeout=ASK_SECONDS))
        except ray.exceptions.RayError as error:
            logger.warning("the ledger of attempts does not answer: %s", error)
            return frozenset()

    def activity(self) -> tuple[int, int]:
        """Return the numbers of reports and of unfinished units of work; (-1, 0) if the ledger does not answer."""
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
        """Return the id of the calling actor, which a restart keeps."""
        import ray

        return str(ray.get_runtime_context().get_actor_id())

    def _ask(self, method: str, *arguments: str) -> int:
        import ray

        try:
            return int(ray.get(getattr(self.ledger, method).remote(*arguments), timeout=ASK_SECONDS))
        except ray.exceptions.RayError as error:  # its node was lost: counting restarts
            logger.warning("the ledger of attempts does not answer: %s", error)
            return 0
