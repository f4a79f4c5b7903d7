"""State shared by the workers of a training and its driver: one small actor, which outlives workers."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from raysp.errors import RayspError, RunError
from raysp.training.data.row_windows import FailedRow
from raysp.training.loop.session import Report
from raysp.training.loop.training_steps import NotFinite

MOST_STARTS = 5
"""Starts of the workers without a commit between them, after which a training fails."""


class News(NamedTuple):
    """Reports and errors since the last call of `Board.take`."""

    reports: Sequence[tuple[Report, int | None]]
    """Steps, each with the number of steps committed."""
    committed: int | None
    """Number of steps committed."""
    errors: Counter[str]
    """Rows that could not be decoded, by type."""
    examples: dict[str, str]
    """A message of each type, with its row."""
    failed: Sequence[FailedRow]
    """Rows that could not be decoded, since the last call; some again after a worker was lost."""
    failure: RayspError | None
    """An error that no repetition helps."""
    not_finite: NotFinite | None
    """A loss that is not finite, with the rows at fault of all workers."""


class Board:
    """State of a training that is shared by its workers and its driver."""

    def __init__(self) -> None:
        self.reports: list[tuple[Report, int | None]] = []
        self.failure: RayspError | None = None
        self.committed: int | None = None
        self.starts = 0
        self.is_stopping = False
        self.not_finite: dict[int, NotFinite] = {}
        self.num_workers: int | None = None
        """Number of workers that have recorded such rows, once all have."""
        self.errors: dict[int, Counter[str]] = {}
        self.examples: dict[str, str] = {}
        self.failed: list[FailedRow] = []

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

    def add(self, report: Report, committed: int | None) -> None:
        """Add a step of the first worker."""
        self.reports.append((report, committed))
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

    def count(
        self, worker: int, errors: Mapping[str, int], examples: Mapping[str, str], failed: Sequence[FailedRow]
    ) -> None:
        """Record the rows that a worker could not decode so far, and the new ones among them."""
        self.errors[worker] = Counter(errors)
        self.failed += failed
        self.examples |= {kind: example for kind, example in examples.items() if kind not in self.examples}

    def take(self) -> News:
        """Return the reports and errors since the last call."""
        (reports, failed), (self.reports, self.failed) = (self.reports, self.failed), ([], [])
        of_workers = [self.not_finite[worker] for worker in sorted(self.not_finite)]
        rows = tuple(row for counts in of_workers for row in counts.rows)
        errors = sum(self.errors.values(), Counter())
        not_finite = of_workers[0]._replace(rows=rows) if self.num_workers else None
        return News(reports, self.committed, errors, self.examples, failed, self.failure, not_finite)

    def stop(self) -> None:
        """Request a stop of the workers after their current step."""
        self.is_stopping = True

    def stops(self) -> bool:
        """Return whether the workers should stop."""
        return self.is_stopping
