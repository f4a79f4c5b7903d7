"""Commit tasks: label shards, as soon as all pieces of their shards are staged.

A commit mostly waits for the store. So where many are due, one task makes several side by side, in threads; where few
are, each has a task of its own.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import ray

from raysp.engine.tasks import Job, commit_shard
from raysp.errors import RunError
from raysp.io.shards import Shard
from raysp.io.store import UnusableError
from raysp.planning import Retry
from raysp.sink.receipts import ShardFailure, ShardReceipt
from raysp.sink.recordings import ChangedRecordingsError

Outcome = ShardReceipt | ShardFailure | ChangedRecordingsError
Due = tuple[Shard, Retry | None]

SHARDS_IN_FLIGHT = 128
"""Of requests of 50 ms this makes 175 commits a second on two cores; they are busy then (docs/performance.md)."""
TASKS_IN_FLIGHT = 8
SHARDS_A_TASK = 32
ROWS_A_TASK = 10_000
"""Of shards that one task commits side by side; each holds a piece of its shard and a row group of the label shard."""
MAX_RETRIES = 3


class Commits:
    """Commit tasks in flight; they use no CPU slot, so that decoding never keeps one waiting."""

    def __init__(self, job: Job, retries: Mapping[str, Retry]) -> None:
        self.retries = retries
        self.job = ray.put(job)
        self.task = ray.remote(commit_shards).options(num_cpus=0, max_retries=MAX_RETRIES, scheduling_strategy="SPREAD")
        self.in_flight: dict[ray.ObjectRef[list[Outcome | UnusableError]], list[Due]] = {}
        self.waiting: deque[Due] = deque()
        self.alone: deque[Due] = deque()
        """Of tasks whose workers kept dying: each is committed by a task of its own, so that only one is at fault."""
        self.stopped = False

    def begun(self) -> list[str]:
        """Return the names of shards whose commit has begun and is not known to have ended."""
        return [shard.name for batch in (*self.in_flight.values(), self.alone) for shard, _ in batch]

    def start(self, shard: Shard) -> None:
        """Commit a shard as soon as there is room."""
        self.waiting.append((shard, self.retries.get(shard.name)))
        self._fill()

    def _fill(self) -> None:
        while (self.waiting or self.alone) and not self.stopped and self._has_room():
            batch = [self.alone.popleft()] if self.alone else next_batch(self.waiting)
            self.in_flight[self.task.remote(self.job, batch)] = batch

    def _has_room(self) -> bool:
        return (
            len(self.in_flight) < TASKS_IN_FLIGHT
            and sum(map(len, self.in_flight.values())) <= SHARDS_IN_FLIGHT - SHARDS_A_TASK
        )

    def finished(self) -> list[Outcome]:
        """Collect what is done by now, without waiting."""
        return self._collect(len(self.in_flight), timeout=0) if self.in_flight else []

    def rest(self) -> list[Outcome]:
        """Wait for all."""
        outcomes: list[Outcome] = []
        while self.in_flight:
            outcomes += self._collect(1, timeout=None)
        return outcomes

    def stop(self, seconds: float) -> list[Outcome]:
        """Start no more, and wait for those in flight, for so long at most."""
        self.stopped = True
        return self._collect(len(self.in_flight), timeout=seconds) if self.in_flight else []

    def _collect(self, num_returns: int, timeout: float | None) -> list[Outcome]:
        ready, _ = ray.wait(list(self.in_flight), num_returns=num_returns, timeout=timeout)
        outcomes = [outcome for one in ready for outcome in self._outcomes(one, self.in_flight.pop(one))]
        self._fill()
        return outcomes

    def _outcomes(self, one: "ray.ObjectRef[list[Outcome | UnusableError]]", batch: list[Due]) -> list[Outcome]:
        try:
            found = ray.get(one)
        except ray.exceptions.RayError as error:
            if len(batch) > 1:
                self.alone += batch
                return []
            reason = f"its commit failed {1 + MAX_RETRIES} times ({type(error).__name__}); run again"
            return [ShardFailure(batch[0][0].name, reason)]
        outcomes: list[Outcome] = []
        for outcome in found:
            if isinstance(outcome, UnusableError):
                raise RunError(f"{outcome}. What was committed stays; run again")
            outcomes.append(outcome)
        return outcomes


def next_batch(waiting: deque[Due]) -> list[Due]:
    """Take the shards that the next task commits side by side; one at least."""
    batch: list[Due] = []
    rows = 0
    while waiting and len(batch) < SHARDS_A_TASK:
        rows += waiting[0][0].num_rows
        if batch and rows > ROWS_A_TASK:
            break
        batch.append(waiting.popleft())
    return batch


def commit_shards(job: Job, batch: Sequence[Due]) -> list[Outcome | UnusableError]:
    """Commit shards side by side, on a worker; returns an outcome each, in their order."""
    if len(batch) == 1:
        return [commit_shard(job, *batch[0])]
    with ThreadPoolExecutor(len(batch)) as threads:
        return list(threads.map(lambda due: commit_shard(job, *due), batch))
