"""Waiting for a busy cluster: warnings about missing resources, and the end of the run after too long."""

import logging
import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raysp.errors import RunError

logger = logging.getLogger(__name__)

Amounts = Mapping[str, float]

LOOK_SECONDS = 10.0
FIRST_WARNING_SECONDS = 60.0
"""Time before the first warning; the time before each further warning doubles."""
WAIT_SECONDS = 7200.0
WAIT_VARIABLE = "RAYSP_WAIT_SECONDS"
AT_WORK_SECONDS = 1800.0
"""Time without a report after which workers with unfinished work count as lost: twice the time of a hang."""
MODEL_ACTOR = "a model actor"
NOT_SHARED = "No other job is connected: workers of this program use the rest, or are still starting"
OF_RAY = ("ray::", "ray-dashboard")
"""First characters of the commands of Ray's own drivers, which request nothing."""
SHOWN = {"CPU": "CPUs", "GPU": "GPUs", "memory": "GB of memory"}


@dataclass(frozen=True)
class Nodes:
    """Resources of the cluster's nodes."""

    free: Sequence[Amounts]
    total: Sequence[Amounts]
    free_for_actors: Sequence[Amounts] | None = None
    """Nodes of `free` on which model actors start; None: all."""
    is_shared: bool = True
    """Whether programs other than this one may use them."""

    def fit(self, request: Amounts, *, is_actor: bool = False) -> bool:
        """Return whether any node has room for a request."""
        free = self.free_for_actors if is_actor and self.free_for_actors is not None else self.free
        return any(fits(request, node) for node in free)


def fits(request: Amounts, node: Amounts) -> bool:
    """Return whether a node has the resources of a request."""
    # Free amounts are differences of fractions, which round.
    return all(node.get(name, 0) >= amount - 1e-6 for name, amount in request.items())


class Waiting:
    """Monitor of the resources that workers request.

    Args:
        activity: returns the number of reports from workers, and the number of unfinished units of work.
        nodes: returns the resources of the cluster.
        actor: request of a model actor.
        reader: request of a reader.
        on_warning: also called with each warning.
        clock: returns seconds since any origin.
    """

    def __init__(
        self,
        activity: Callable[[], tuple[int, int]],
        nodes: Callable[[], Nodes],
        *,
        actor: Amounts,
        reader: Amounts,
        on_warning: Callable[[str], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.activity = activity
        self.nodes = nodes
        self.actor = actor
        self.reader = reader
        self.on_warning = on_warning
        self.clock = clock
        self.limit = wait_seconds()
        self._looked = clock()
        self._reports = -1
        self._quiet = 0.0
        self._warned_at = 0.0

    def look(self, num_actors: int) -> None:
        """Warn about missing resources. Called often; checks every ten seconds.

        Args:
            num_actors: number of actors that have loaded their model.

        Raises:
            RunError: resources were missing for too long.
        """
        elapsed = self.clock() - self._looked
        if elapsed < LOOK_SECONDS:
            return
        self._looked += elapsed
        reports, num_open = self.activity()
        if reports != self._reports:
            self._reports, self._quiet, self._warned_at = reports, 0.0, 0.0
            return
        self._quiet += min(elapsed, 2 * LOOK_SECONDS)  # for the rest, this process was paused
        waited = self._quiet - (AT_WORK_SECONDS if num_open else 0.0)
        if waited >= min(self.limit, max(FIRST_WARNING_SECONDS, 2 * self._warned_at)):
            missing = {} if num_actors else {MODEL_ACTOR: self.actor}
            self._judge(waited, {"a reader": self.reader} | missing)

    def _judge(self, waited: float, requests: Mapping[str, Amounts]) -> None:
        nodes = self.nodes()
        lacking = {who: one for who, one in requests.items() if not nodes.fit(one, is_actor=who == MODEL_ACTOR)}
        if not lacking:
            self._quiet = self._warned_at = 0.0
            return
        found = f"{_requests(lacking)}; the cluster has {_free(nodes)} free"
        if waited >= self.limit:
            raise RunError(
                f"no worker could start for {_minutes(waited)}: {found}. Run again when the cluster has free resources "
                f"(committed labels are kept), lower pool.cpus, pool.gpus or pool.memory, or wait longer with "
                f"{WAIT_VARIABLE}"
            )
        whose = "Other jobs use the rest" if nodes.is_shared else NOT_SHARED
        message = (
            f"waiting for the cluster for {_minutes(waited)}: {found}. {whose}, or nodes are still starting; the run "
            f"ends after {_minutes(self.limit)}"
        )
        logger.warning("%s", message)
        self.on_warning(message)
        self._warned_at = waited


def wait_seconds() -> float:
    """Return the seconds that a run waits for a busy cluster."""
    return float(os.environ.get(WAIT_VARIABLE) or WAIT_SECONDS)


def cluster_nodes(avoided: Callable[[], Collection[str]] = frozenset) -> Nodes:
    """Return the resources of the nodes of the connected cluster; model actors do not start on `avoided` ones."""
    from ray._private import state

    free: dict[str, Amounts] = state.available_resources_per_node()  # type: ignore[no-untyped-call]
    without = avoided()
    for_actors = [one for node, one in free.items() if node not in without]
    return Nodes([*free.values()], [*node_totals().values()], for_actors, is_shared=has_other_jobs())


def has_other_jobs() -> bool:
    """Return whether programs other than this one are connected to the cluster."""
    import ray
    from ray._private import state

    own = ray.get_runtime_context().get_job_id()
    jobs: list[dict[str, Any]] = state.jobs()  # type: ignore[no-untyped-call]
    living = (one for one in jobs if not one["IsDead"] and one["JobID"] != own)
    return any(not one["Entrypoint"].startswith(OF_RAY) for one in living)


def node_totals() -> dict[str, Amounts]:
    """Return the resources of the nodes that are alive, in use or not, by the node's id."""
    import ray

    living: list[dict[str, Any]] = [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    return {node["NodeID"]: node["Resources"] for node in living}


def _requests(requests: Mapping[str, Amounts]) -> str:
    return " and ".join(f"{who} requests {_amounts(request)}" for who, request in requests.items())


def _amounts(request: Amounts) -> str:
    return ", ".join(_with_unit(name, _shown(name, amount)) for name, amount in request.items())


def _free(nodes: Nodes) -> str:
    totals = {name: sum(node.get(name, 0) for node in nodes.total) for name in SHOWN}
    free = {name: sum(node.get(name, 0) for node in nodes.free) for name in SHOWN}
    return ", ".join(f"{_shown(name, free[name])} of {_with_unit(name, _shown(name, totals[name]))}" for name in SHOWN)


def _with_unit(name: str, number: str) -> str:
    return f"1 {name}" if number == "1" else f"{number} {SHOWN[name]}"


def _shown(name: str, amount: float) -> str:
    return f"{amount / 1e9:.1f}" if name == "memory" else f"{round(amount, 2):g}"


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= FIRST_WARNING_SECONDS else f"{seconds:.0f} s"
