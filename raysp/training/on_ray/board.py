"""State shared by the workers of a training and its driver: one small actor, which outlives workers."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from raysp.errors import RayspError, RunError
from raysp.training.sink.step_log import ErrorRow, StepRecord

MOST_STARTS = 5
"""Starts of the workers without a commit between them, after which a training fails."""


@dataclass
class News:
    """Steps and errors since the last call of `Board.take`."""

    steps: list[tuple[StepRecord, int | None]] = field(default_factory=list)
    """Steps, each with the number of steps committed."""
    committed: int | None = None
    """Number of steps committed."""
    errors: Counter[str] = field(default_factory=Counter)
    """Rows that could not be decoded so far, by type."""
    examples: dict[str, str] = field(default_factory=dict)
    """A message of each type, with its row."""
    failed: list[ErrorRow] = field(default_factory=list)
    """Failed rows since the last call that no reported step lists."""
    failure: RayspError | None = None
    """An error that no repetition helps."""


@dataclass(eq=False, repr=False)
class Board:
    """State of a training that is shared by its workers and its driver; only the first worker reports steps."""

    news: News = field(default_factory=News)
    starts: int = 0
    num_workers: int = 0
    """Workers of the last start."""
    is_stopping: bool = False

    def begin(self, worker: int, num_workers: int, committed: int | None) -> bool:
        """Record that a worker starts at a committed step, and return whether it should work.

        Too many starts without a commit between them are a failure, but for starts with more workers than before, for
        which nodes came up.
        """
        news = self.news
        if worker == 0:
            has_grown = 0 < self.num_workers < num_workers
            self.starts = self.starts + (not has_grown) if committed == news.committed else 1
            self.num_workers, news.committed = num_workers, committed
            if self.starts > MOST_STARTS:
                self.fail(
                    RunError(
                        f"the workers ended {MOST_STARTS} times without a commit between, most likely out of memory: "
                        "lower batching.seconds, or commit more often (sink.every)"
                    )
                )
        return news.failure is None

    def add(self, step: StepRecord, committed: int | None, errors: Counter[str], examples: Mapping[str, str]) -> bool:
        """Add a step, and return whether the workers should stop after the next one.

        Args:
            step: the step.
            committed: number of steps committed.
            errors: rows that could not be decoded so far, by type.
            examples: a message of each type.
        """
        self.news.steps.append((step, committed))
        self.leave(committed, errors, examples, ())
        return self.is_stopping

    def leave(
        self, committed: int | None, errors: Counter[str], examples: Mapping[str, str], failed: Sequence[ErrorRow]
    ) -> None:
        """Record the last commit and the rows that failed; no reported step lists `failed`. Arguments as for `add`."""
        news = self.news
        if committed != news.committed:
            news.committed, self.starts = committed, 1
        news.errors, news.examples = errors, {**examples, **news.examples}
        news.failed += failed

    def fail(self, error: RayspError) -> None:
        """Record an error that no repetition helps; the first one counts."""
        self.news.failure = self.news.failure or error

    def take(self) -> News:
        """Return the steps and errors since the last call."""
        taken, self.news = self.news, replace(self.news, steps=[], failed=[])
        return taken

    def stop(self) -> None:
        """Request a stop of the workers."""
        self.is_stopping = True
