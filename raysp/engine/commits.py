"""Commit tasks: a label shard each, as soon as all of its pieces are staged."""

from collections.abc import Mapping

import ray

from raysp.engine.tasks import Job, commit_shard
from raysp.errors import RunError
from raysp.io.shards import Shard
from raysp.io.store import UnusableError
from raysp.planning import Retry
from raysp.sink.receipts import ShardFailure, ShardReceipt

Outcome = ShardReceipt | ShardFailure

MAX_IN_FLIGHT = 8
MAX_RETRIES = 3


class Commits:
    """Commit tasks in flight; they use no CPU slot, so that decoding never keeps one waiting."""

    def __init__(self, job: Job, retries: Mapping[str, Retry]) -> None:
        self.retries = retries
        self.job = ray.put(job)
        self.task = ray.remote(commit_shard).options(num_cpus=0, max_retries=MAX_RETRIES, scheduling_strategy="SPREAD")
        self.in_flight: dict[ray.ObjectRef[Outcome | UnusableError], str] = {}
        self.waiting: list[Shard] = []

    def start(self, shard: Shard) -> None:
        """Commit a shard as soon as there is room."""
        self.waiting.append(shard)
        self._fill()

    def _fill(self) -> None:
        while self.waiting and len(self.in_flight) < MAX_IN_FLIGHT:
            shard = self.waiting.pop(0)
            self.in_flight[self.task.remote(self.job, shard, self.retries.get(shard.name))] = shard.name

    def finished(self) -> list[Outcome]:
        """Collect what is done by now, without waiting."""
        return self._collect(len(self.in_flight), timeout=0) if self.in_flight else []

    def rest(self) -> list[Outcome]:
        """Wait for all."""
        outcomes: list[Outcome] = []
        while self.in_flight:
            outcomes += self._collect(1, timeout=None)
        return outcomes

    def _collect(self, num_returns: int, timeout: float | None) -> list[Outcome]:
        ready, _ = ray.wait(list(self.in_flight), num_returns=num_returns, timeout=timeout)
        outcomes = [self._outcome(one, self.in_flight.pop(one)) for one in ready]
        self._fill()
        return outcomes

    def _outcome(self, one: "ray.ObjectRef[Outcome | UnusableError]", shard: str) -> ShardReceipt | ShardFailure:
        try:
            outcome = ray.get(one)
        except ray.exceptions.RayError as error:
            reason = f"its commit failed {1 + MAX_RETRIES} times ({type(error).__name__}); run again"
            return ShardFailure(shard, reason)
        if isinstance(outcome, UnusableError):
            raise RunError(f"{outcome}. What was committed stays; run again")
        return outcome
