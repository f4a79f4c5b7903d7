"""The driver's loop, which collects messages of workers, commits complete shards and counts failures."""

import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Generator, Sequence, Sized
from dataclasses import dataclass
from textwrap import shorten
from typing import Protocol

from raysp import tracebacks
from raysp.corpus.shards import Shard
from raysp.errors import RunError
from raysp.labelling.engine.display import OnProgress
from raysp.labelling.engine.job import FatalFailure, LabelledPiece, Message, Outcome, PieceTodo, RetriedPiece, RowError
from raysp.labelling.engine.open_shards import ErrorRate, OpenShards
from raysp.labelling.engine.run_progress import Progress
from raysp.labelling.engine.run_result import describe
from raysp.labelling.planning.run_plan import Plan
from raysp.ops.rows import FILTERED, remedy
from raysp.sink import lease, stage
from raysp.sink.commit import Todo
from raysp.sink.receipts import Counts, ShardFailure
from raysp.sink.run_log import RunLog
from raysp.words import count, run_again

logger = logging.getLogger(__name__)

OnPiece = Callable[[PieceTodo], None]

LAST_COMMITS_SECONDS = 60
"""Time that a stopping run waits for commits in flight."""
STOP_SECONDS = 0.5
"""Time within which a request to stop ends the wait for commits: no signal handler runs while Ray waits."""

MOST_BLAMED = 100
"""Error rows of each type in the log; the label shards have all of them."""

MOST_EXAMPLES = 3
EXAMPLE_CHARACTERS = 120
"""Error rows that the reason of a stop names, and the length of each."""


class Committing(Protocol):
    """Commits in flight."""

    @property
    def in_flight(self) -> Sized:
        """Commits that have not ended."""

    def start(self, todo: Todo, staged_bytes: int) -> None:
        """Queue the commit of a shard with this number of staged bytes."""

    def finished(self, seconds: float = 0.0) -> list[Outcome]:
        """Return the outcomes of commits that have ended, after waiting at most this long for one of them."""

    def stop(self, seconds: float) -> list[Outcome]:
        """Start no more commits, wait at most `seconds` for those in flight, and return their outcomes."""


class Workers(Protocol):
    """Workers that label pieces and commit shards: on Ray (`ray_pool`), or in this process (`here`)."""

    @property
    def commits(self) -> Committing:
        """Commits of the run."""

    def label(self, on_piece: OnPiece) -> Generator[Message]:
        """Label the pieces of the plan, and yield counts and failures; `on_piece` is called with each piece taken.

        When the generator is closed, no piece is staged any more.
        """


@dataclass(eq=False)
class Execution:
    """One execution of a plan: messages are collected and label shards committed."""

    plan: Plan
    own: lease.Lease
    log: RunLog
    progress: Progress
    on_progress: OnProgress
    workers: Workers

    def __post_init__(self) -> None:
        plan, self.commits = self.plan, self.workers.commits
        self.open_shards = OpenShards(plan.todo, self.progress)
        self.rate = ErrorRate(plan.pipeline.max_error_rate)
        self.rows_before = sum(staged.rows.num_rows for todo in plan.todo for staged in todo.staged)
        """Rows of other runs in the error rate: staged ones, and those that retried shards keep."""
        self.errors_before = self.open_shards.errors.total()
        self.kept_rows = {todo.shard.name: todo.shard.num_rows - todo.num_rows for todo in plan.todo if todo.keeps_rows}
        """Rows outside the retry, by shards of which no row is labelled yet."""
        self.blamed: Counter[str] = Counter()
        """Error rows in the log, by type."""
        self.reported: set[str] = set()
        """Errors whose tracebacks were logged."""

    def __call__(self) -> dict[str, str]:
        """Label and commit, and return the shards that failed, with reasons.

        Raises:
            RunError: too many error rows, the sink cannot be written, another run took over, or Ray failed.
        """
        self._count()
        for todo in self.plan.todo:
            if not todo.pieces:
                self._release(todo)
        self._check_rate()
        begin = self.open_shards.submit
        with contextlib.closing(self.workers.label(lambda todo: begin(todo.name, todo.part))) as messages:
            for message in messages:
                self._handle(message)
                if self.rate.is_exceeded:
                    break
        self._commit(self.rate.released(at_end=True))
        while not self.rate.is_exceeded and self.commits.in_flight:
            self._record(self.commits.finished(STOP_SECONDS))
            self.on_progress(self.progress)  # raises a requested stop that another library has swallowed
        self._check_rate()
        self.on_progress(self.progress)
        return dict(self.open_shards.unfinished())

    def _handle(self, message: Message) -> None:
        # With each message: a run that lost its lease ends before it commits more.
        self.own.check()
        tracebacks.report(self.reported)
        match message:
            case FatalFailure():
                raise RunError(run_again(message.reason))
            case ShardFailure():
                self._fail(message)
            case LabelledPiece():
                self._add(message)
            case RetriedPiece():
                self.progress.in_flight.pop((message.shard, message.part), None)
        # Without waiting: the next messages are not held up by commits.
        self._record(self.commits.finished())
        self.on_progress(self.progress)
        self._commit(self.rate.released())

    def _check_rate(self) -> None:
        """End the run if too many rows failed, and remove the results of its error rows, which are labelled again.

        If this process ends before, the next run removes staged results that failed by more than the limit. A retry's
        staged results are never used again. Error rows in label shards are left to `raysp retry`.
        """
        if not self.rate.is_exceeded:
            return
        self._record(self.commits.stop(LAST_COMMITS_SECONDS))
        for name in self.open_shards.staged_bytes:
            stage.discard(self.plan.sink.store, name, only_errors=True)
        raise RunError(_too_many_errors(self.plan, self.progress, self.rate))

    def _release(self, todo: Todo) -> None:
        self._commit(self.rate.release(todo, self.open_shards.errors[todo.shard.name]))

    def _commit(self, shards: Sequence[Shard]) -> None:
        """Start commits until too many rows have failed, also in steps after the last model."""
        for shard in shards:
            if not self.rate.is_exceeded:
                self.commits.start(self.open_shards.todo[shard.name], self.open_shards.staged_bytes[shard.name])
                self._record(self.commits.finished())

    def _add(self, labelled: LabelledPiece) -> None:
        receipt = labelled.receipt
        self.rows_before += self.kept_rows.pop(receipt.shard, 0)
        shard = self.open_shards.add(labelled)
        if not labelled.is_staged:
            return
        self.log.add(receipt)
        self._blame(labelled.examples)
        if shard is not None:
            self._release(self.open_shards.todo[shard.name])

    def _blame(self, examples: Sequence[RowError]) -> None:
        """Show error rows, and log the first of each type."""
        self.open_shards.show(examples)
        for shard, row, kind, message in examples:
            self.blamed[kind] += 1
            if self.blamed[kind] <= MOST_BLAMED:
                # A function of the user may quote labels, and `forget` changes no log.
                details = {} if kind == "step_failed" else {"message": message}
                self.log.event("row_blamed", shard=shard, row=row, error_type=kind, **details)

    def _fail(self, failure: ShardFailure) -> None:
        self.open_shards.fail(failure.shard, failure.reason)
        self.log.add(failure)

    def _record(self, outcomes: Sequence[Outcome]) -> None:
        tracebacks.report(self.reported)
        for outcome in outcomes:
            if isinstance(outcome, FatalFailure):
                raise RunError(run_again(outcome.reason))
            if isinstance(outcome, ShardFailure):
                self._fail(outcome)
            else:
                self.log.add(outcome)
                self._blame([RowError(outcome.shard, *example) for example in outcome.examples_behind])
                self.progress.behind += Counts(
                    skipped={FILTERED: outcome.filtered_behind}, errors={"step_failed": outcome.failed_behind}
                )
                if not self.open_shards.todo[outcome.shard].keeps_rows:
                    self.progress.committed += outcome.counts
                self.open_shards.committed(outcome)
        self._count()

    def _count(self) -> None:
        """Count the rows of the error rate, of this run and of earlier runs."""
        rows, errors = self.progress.rows_and_errors
        self.rate.rows, self.rate.num_errors = self.rows_before + rows, self.errors_before + errors


def _too_many_errors(plan: Plan, progress: Progress, rate: ErrorRate) -> str:
    """Return the reason of a stop as one line: counts by type, a few short examples, and a remedy."""
    errors = Counter(progress.errors).most_common()
    kinds = ", ".join(f"{number:,} {kind}" for kind, number in errors)
    described = describe(progress.error_examples[:MOST_EXAMPLES], plan.corpus.shards, plan.pipeline)
    examples = "; ".join(shorten(example, EXAMPLE_CHARACTERS, placeholder=" ...") for example in described)
    return (
        f"{rate.num_errors:,} of {count(rate.rows, 'row')} failed ({kinds}), more than "
        f"max_error_rate={plan.pipeline.max_error_rate}; for example {examples}. For {errors[0][0]}: "
        f"{remedy(errors[0][0])}. Correct the input or raise max_error_rate, and run again"
    )
