"""Who dies over what: Ray repeats the work of a worker that died for ever, so somebody has to count.

A worker says what it begins and what it has ended. What was begun several times and never ended has killed its
workers (a crash in native code, the memory monitor, the watchdog below), and is not begun again.
"""

import contextlib
import faulthandler
import logging
import os
from collections.abc import Iterator
from typing import Any

logger = logging.getLogger(__name__)

MAX_DEATHS = 3
"""Of workers over one piece, block or load of a model, before something else is done about it."""
HANG_SECONDS = 900.0
"""After which a block, meant to take some ten seconds, has hung."""
HANG_VARIABLE = "RAYSP_HANG_SECONDS"
"""For models that need longer than that for a block, and for tests."""
ASK_SECONDS = 60


class Ledger:
    """Count what was begun and not ended; one small actor a run."""

    def __init__(self) -> None:
        self.open: dict[str, int] = {}
        self.places: dict[str, dict[str, int]] = {}

    def begin(self, work: str) -> int:
        """Note that work begins; gives how often it had begun before without an end."""
        before = self.open.get(work, 0)
        self.open[work] = before + 1
        return before

    def end(self, work: str) -> None:
        """Note that it has ended, however."""
        self.open.pop(work, None)
        self.places.pop(work, None)

    def reach(self, task: str, part: str, places: int) -> None:
        """Note how much of a part of a task is out."""
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
        """Say that work begins; gives the number of workers that died over it, so far as is known."""
        return self._ask("begin", work)

    def end(self, work: str) -> None:
        """Say that it has ended; does not wait."""
        self.ledger.end.remote(work)

    def reach(self, task: str, part: str, places: int) -> None:
        """Say how many blocks of a part of a task are out; does not wait."""
        self.ledger.reach.remote(task, part, places)

    def reached(self, task: str, part: str) -> int:
        """Give the most blocks of a part that were ever out."""
        return self._ask("reached", task, part)

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


@contextlib.contextmanager
def watched(seconds: float) -> Iterator[None]:
    """End this process when what is done inside takes longer, even where it holds the interpreter's lock.

    One at a time in a process.
    """
    faulthandler.dump_traceback_later(seconds, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
