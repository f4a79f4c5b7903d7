"""State shared by the workers of a training and its driver: one small actor, which outlives workers."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from raysp.errors import RayspError, RunError
from raysp.training.loop.training_steps import NotFinite
from raysp.training.sink.step_log import ErrorRow, StepRecord

MOST_STARTS = 5
"""Starts of the workers without a commit between them, after which a training fails."""


class News(NamedTuple):
    """Steps and errors since the last call of `Board.take`."""

    steps: Sequence[tuple[StepRecord, int | None]]
    """Steps, each with the number of steps committed."""
    committed: int | None
    """Number of steps committed."""
    errors: Counter[str]
    """Rows that could not be decoded, by type."""
    examples: dict[str, str]
    """A message of each type, with its row."""
    failed: Sequence[ErrorRow]
    """Those of them that no step lists, since the last call."""
    failure: RayspError | None
    """An error that no repetition helps."""
    not_finite: NotFinite | None
    """A loss that is not finite, with the rows at fault of all workers."""


class Board:
    """State of a training that is shared by its workers and its driver."""

    def __init__(self) -> None:
        self.steps: list[tuple[StepRecord, int | None]] = []
        self.failure: RayspError | None = None
        self.committed: int | None = None
        self.starts = 0
        self.is_stopping = False
        self.not_finite: dict[int, NotFinite] = {}
        self.num_workers: int | None = None
        """Number of workers that have recorded such rows, once all have."""
        self.errors: Counter[str] = Counter()
        self.examples: dict[str, str] = {}
        self.failed: list[ErrorRow] = []

    def begin(self, worker: int, committed: int | None) -> bool:
        """Record that a worker starts at a committed step, and return whether it should work.

        Too many starts without a commit between them are a failure.
        """
        if worker == 0:
            self.starts = self.starts + 1 if committed == self.committed else 1
            self.committed = committed
            if self.starts > MOST_STARTS and self.failure is None:
                self.failure = RunError(
                    f"the workers ended {MOST_STARTS} times without a commit between, most likely out of memory: "
                    "lower batching.seconds, or commit more often (sink.every)"
                )
        return self.failure is None

    def add(self, step: StepRecord, committed: int | None) -> None:
        """Add a step of the first worker."""
        self.steps.append((step, committed))
        if committed != self.committed:
            self.committed, self.starts = committed, 1

    def fail(self, error: RayspError) -> None:
        """Record an error that no repetition helps; the first one counts."""
        self.failure = self.failure or error

    def commit(self, worker: int, committed: int | None) -> None:
        """Record the last commit, which the first worker makes."""
        if worker == 0:
            self.committed = committed

    def fail_rows(self, worker: int, num_workers: int, fault: NotFinite) -> None:
        """Record a worker's rows whose loss is not finite, in a step in which all workers call this."""
        self.not_finite[worker] = fault
        if len(self.not_finite) == num_workers:
            self.num_workers = num_workers

    def count(self, errors: Mapping[str, int], examples: Mapping[str, str]) -> None:
        """Record the rows that could not be decoded so far."""
        self.errors = Counter(errors)
        self.examples |= {kind: example for kind, example in examples.items() if kind not in self.examples}

    def leave(self, failed: Sequence[ErrorRow]) -> None:
        """Record the rows that failed since the last step of workers that end."""
        self.failed += failed

    def take(self) -> News:
        """Return the steps and errors since the last call."""
        (steps, failed), (self.steps, self.failed) = (self.steps, self.failed), ([], [])
        of_workers = [self.not_finite[worker] for worker in sorted(self.not_finite)]
        rows = tuple(row for counts in of_workers for row in counts.rows)
        not_finite = of_workers[0]._replace(rows=rows) if self.num_workers else None
        return News(steps, self.committed, self.errors, self.examples, failed, self.failure, not_finite)

    def stop(self) -> None:
        """Request a stop of the workers after their current step."""
        self.is_stopping = True

    def stops(self) -> bool:
        """Return whether the workers should stop."""
        return self.is_stopping
