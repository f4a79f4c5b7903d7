"""Waiting for a busy cluster: warnings about missing resources, and a timeout that ends the run."""

import logging
import os
import time
from collections.abc import Callable, Mapping

from raysp.errors import RunError
from raysp.words import count, duration

logger = logging.getLogger(__name__)

FIRST_WARNING_SECONDS = 60.0
"""Time before the first warning; the time before each further warning doubles."""
WAIT_SECONDS = 7200.0
WAIT_VARIABLE = "RAYSP_WAIT_SECONDS"
PAUSE_SECONDS = 20.0
"""Longest time between two calls that counts as waiting: for the rest, this process was paused."""


class Waiting:
    """Monitor of the resources that workers request.

    Args:
        on_warning: called with each warning, which is also logged.
        clock: returns seconds since any origin.
    """

    def __init__(self, on_warning: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._on_warning, self._clock = on_warning, clock
        self._limit = float(os.environ.get(WAIT_VARIABLE) or WAIT_SECONDS)
        self._looked = clock()
        self._worker, self._waited, self._next_warning = "", 0.0, 0.0

    def look(self, worker: str, request: Mapping[str, float]) -> None:
        """Warn if a worker has been missing for long. Called often.

        Args:
            worker: the worker that could not start, such as "a reader"; empty: none is missing.
            request: resources that it requests.

        Raises:
            RunError: it was missing for too long.
        """
        elapsed = min(self._clock() - self._looked, PAUSE_SECONDS)
        self._looked = self._clock()
        self._waited += elapsed
        if worker != self._worker:
            self._worker, self._waited, self._next_warning = worker, 0.0, FIRST_WARNING_SECONDS
        if not worker or self._waited < min(self._limit, self._next_warning):
            return
        missing = f"{worker} requests {_amounts(request, request)} on one node; {_free(request)}"
        if self._waited >= self._limit:
            raise RunError(
                f"no worker could start for {duration(self._waited)}: {missing}. Run again when the cluster has free "
                "resources (committed labels are kept), lower pool.cpus, pool.gpus or pool.memory, or wait longer with "
                f"{WAIT_VARIABLE}"
            )
        message = (
            f"waiting for the cluster for {duration(self._waited)}: {missing}. Other workers use the rest, or nodes "
            f"are still starting; the run ends after {duration(self._limit)}"
        )
        logger.warning("%s", message)
        self._on_warning(message)
        self._next_warning = 2 * self._waited


def _free(names: Mapping[str, float]) -> str:
    import ray

    free, total = ray.available_resources(), ray.cluster_resources()  # type: ignore[no-untyped-call]
    return f"the cluster has {_amounts(names, free)} free of {_amounts(names, total)}"


def _amounts(names: Mapping[str, float], amounts: Mapping[str, float]) -> str:
    """Return amounts of resources, such as "2 CPUs, 1 GPU"."""
    numbers = {name: amounts.get(name, 0.0) for name in names}
    return ", ".join(
        f"{number / 1e9:.1f} GB of memory" if name == "memory" else count(round(number, 2), name)
        for name, number in numbers.items()
    )
