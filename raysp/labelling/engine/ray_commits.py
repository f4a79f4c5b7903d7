"""Commit tasks, which write a label shard once all pieces of its shard are staged.

A commit mostly waits for the store. If many are due, one task makes several concurrently, in threads. If few are due,
or if they need much memory, each has its own task. The memory of all commits in flight is bounded by an estimate.
"""

from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import ray

from raysp import tracebacks
from raysp.corpus.shards import Shard
from raysp.labelling.engine.job import Job, Outcome
from raysp.labelling.engine.piece import commit_shard
from raysp.sink import commit
from raysp.sink.commit import Retry, Todo
from raysp.sink.receipts import ShardFailure

Made = tuple[list[Outcome], dict[str, str]]
"""Outcomes of a task, and tracebacks of errors."""

SHARDS_IN_FLIGHT = 128
"""With requests of 50 ms, 175 commits per second on two cores, which are then busy (docs/evidence/performance.md)."""
TASKS_IN_FLIGHT = 8
SHARDS_A_TASK = 32
ROWS_A_TASK = 10_000
"""Rows of the shards that one task commits concurrently."""
BYTES_A_TASK = 512 * 1024 * 1024
"""Memory of concurrent commits in one task; a commit that needs more has its own task."""
BYTES_IN_FLIGHT = TASKS_IN_FLIGHT * BYTES_A_TASK
"""No task starts while commits in flight need this much memory."""
MAX_RETRIES = 3


Due = tuple[Todo, int]
"""A shard to commit, and the approximate bytes of memory that its commit needs."""


class Commits:
    """Commit tasks in flight; they use no CPU slot, so that decoding never delays them.

    Args:
        job: reference to the job of the run.
    """

    def __init__(self, job: "ray.ObjectRef[Job]") -> None:
        self.job = job
        self.task = ray.remote(commit_shards)
        self.in_flight: dict[ray.ObjectRef[Made], list[Due]] = {}
        self.waiting: deque[Due] = deque()
        self.alone: deque[Due] = deque()
        """Shards of tasks whose workers kept crashing: each gets its own task, so that only the faulty one fails."""
        self.stopped = False

    def start(self, todo: Todo, staged_bytes: int) -> None:
        """Queue the commit of a shard with this number of staged bytes."""
        self.waiting.append((todo, commit.memory(todo.shard.num_rows, staged_bytes)))
        self._fill()

    def _fill(self) -> None:
        # No CPUs: a commit mostly waits for the store, and must not wait for readers.
        task = self.task.options(num_cpus=0, max_retries=MAX_RETRIES, scheduling_strategy="SPREAD")
        while (self.waiting or self.alone) and not self.stopped and self._has_room():
            batch = [self.alone.popleft()] if self.alone else next_batch(self.waiting)
            self.in_flight[task.remote(self.job, [(todo.shard, todo.retry) for todo, _ in batch])] = batch

    def _has_room(self) -> bool:
        shards = [due for batch in self.in_flight.values() for due in batch]
        return (
            len(self.in_flight) < TASKS_IN_FLIGHT
            and len(shards) <= SHARDS_IN_FLIGHT - SHARDS_A_TASK
            and sum(memory for _, memory in shards) < BYTES_IN_FLIGHT
        )

    def finished(self, seconds: float = 0.0) -> list[Outcome]:
        """Return the outcomes of commits that have ended, after waiting at most this long for one of them."""
        return self._collect(1 if seconds else len(self.in_flight), seconds)

    def stop(self, seconds: float) -> list[Outcome]:
        """Start no more commits, wait at most `seconds` for those in flight, and return their outcomes."""
        self.stopped = True
        return self._collect(len(self.in_flight), seconds)

    def _collect(self, num_returns: int, timeout: float) -> list[Outcome]:
        if not self.in_flight:
            return []
        ready, _ = ray.wait(list(self.in_flight), num_returns=num_returns, timeout=timeout)
        outcomes = [outcome for ref in ready for outcome in self._outcomes(ref, self.in_flight.pop(ref))]
        self._fill()
        return outcomes

    def _outcomes(self, ref: "ray.ObjectRef[Made]", batch: list[Due]) -> list[Outcome]:
        try:
            made, noted = ray.get(ref)
        except ray.exceptions.RayError as error:
            if len(batch) > 1:
                self.alone += batch
                return []
            reason = f"its commit failed {1 + MAX_RETRIES} times ({type(error).__name__}); run again"
            return [ShardFailure(batch[0][0].shard.name, reason)]
        tracebacks.keep(noted)
        return made


def next_batch(waiting: deque[Due]) -> list[Due]:
    """Remove and return the shards that the next task commits concurrently, at least one."""
    batch: list[Due] = []
    rows = memory = 0
    while waiting and len(batch) < SHARDS_A_TASK:
        todo, needed = waiting[0]
        rows, memory = rows + todo.shard.num_rows, memory + needed
        if batch and (rows > ROWS_A_TASK or memory > BYTES_A_TASK):
            break
        batch.append(waiting.popleft())
    return batch


def commit_shards(job: Job, batch: Sequence[tuple[Shard, Retry | None]]) -> Made:
    """Commit shards concurrently, on a worker, and return an outcome per shard, in order, and tracebacks of errors."""
    if len(batch) == 1:
        return [commit_shard(job, *batch[0])], tracebacks.take()
    with ThreadPoolExecutor(len(batch)) as threads:
        return list(threads.map(lambda due: commit_shard(job, *due), batch)), tracebacks.take()
