"""Attempts at units of work, as workers report them, and how long work may take.

Ray retries crashed work indefinitely, so on Ray crashes are counted (`on_ray.counted_attempts`).
"""

import os
import time

from raysp import tracebacks
from raysp.errors import RunError

MAX_CRASHES = 3
"""Crashes of workers on one piece, block or model load after which it is not started again."""
HANG_SECONDS = 900.0
"""Time after which a block counts as hung; a block is sized for some ten seconds."""
HANG_VARIABLE = "RAYSP_HANG_SECONDS"
"""Overrides `HANG_SECONDS`, for models that need longer for a block, and for tests."""
LOADS, LOADED = "loads", "loaded"
PAUSE_SECONDS = 30.0
"""Pause before an actor whose load failed frees its slot, while others work: the next one may get the same GPU."""


class Attempts:
    """Attempts at work that is not counted: a crash ends this process, so no work is repeated."""

    def begin(self, work: str) -> int:
        """Return 0, the number of earlier crashes: none is counted."""
        return 0

    def crashes(self, work: str) -> int:
        """Return 0: no crash is counted."""
        return 0

    def end(self, work: str) -> None:
        """Do nothing."""

    def reach(self, task: str, part: str, places: int) -> None:
        """Do nothing."""

    def reached(self, task: str, part: str) -> int:
        """Return 0, the number of blocks of an earlier attempt: there is none."""
        return 0

    def load_failed(self) -> None:
        """Do nothing: there is no other node."""

    def nodes_without_model(self) -> frozenset[str]:
        """Return the nodes on which the model of this run could not be loaded: always empty."""
        return frozenset()

    def activity(self) -> tuple[int, int]:
        """Return the numbers of reports and of unfinished units of work: (-1, 0), since there is no ledger."""
        return -1, 0

    def close(self) -> None:
        """Do nothing: there is no ledger."""

    @staticmethod
    def actor_id() -> str:
        """Return a constant id."""
        return "in process"


def hang_seconds() -> float:
    """Return the seconds after which a worker's operation counts as hung."""
    return float(os.environ.get(HANG_VARIABLE) or HANG_SECONDS)


def model_loaded(attempts: Attempts) -> None:
    """Record that an actor of this run has loaded its model."""
    attempts.reach(LOADS, LOADED, 1)


def load_error(attempts: Attempts, node: str, error: Exception) -> RunError:
    """Report a failed load, and return its error with the node, after a pause if another actor has loaded the model."""
    attempts.load_failed()
    if attempts.reached(LOADS, LOADED):
        time.sleep(PAUSE_SECONDS)
    return RunError(f"node {node}: {tracebacks.described(error)}")
