"""The driver's loop, which collects messages of workers, commits complete shards and counts failures."""

import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Generator, Sequence, Sized
from dataclasses import dataclass
from textwrap import shorten
from typing import Protocol

from raysp import tracebacks
from raysp.columns import OK
from raysp.corpus.shards import Shard
from raysp.errors import RunError
from raysp.labelling.engine.display import OnProgress
from raysp.labelling.engine.error_rate import ErrorRate
from raysp.labelling.engine.job import FatalFailure, LabelledPiece, Message, Outcome, PieceTodo, RetriedPiece, RowError
from raysp.labelling.engine.run_progress import FIRST_SHARDS, Progress
from raysp.labelling.engine.run_result import describe
from raysp.labelling.planning.run_plan import Plan
from raysp.ops.rows import FILTERED, remedy
from raysp.sink import lease, stage
from raysp.sink.commit import Todo
from raysp.sink.receipts import Counts, ShardFailure, ShardReceipt
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

MOST_SHOWN = 5
"""Error rows that are shown."""
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
        self.todo = {todo.shard.name: todo for todo in plan.todo}
        self.failed: dict[str, str] = {}
        self.rows_left = {name: todo.num_rows for name, todo in self.todo.items()}
        """Rows without a result, by uncommitted shard."""
        self.staged_bytes, self.errors = Counter[str](), Counter[str]()
        """Bytes and error rows staged, by uncommitted shard."""
        self.rows_before = 0
        """Rows of other runs in the error rate: staged ones, and those that retried shards keep."""
        for file in (file for todo in plan.todo for file in todo.staged):
            self.staged_bytes[file.name.shard] += file.num_bytes
            self.errors[file.name.shard] += file.name.errors
            self.rows_before += file.rows.num_rows
        self.errors_before = self.errors.total()
        self.rate = ErrorRate(plan.pipeline.max_error_rate)
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
        with contextlib.closing(self.workers.label(self._begin)) as messages:
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
        lost = {
            name: f"no result for {count(rows, 'row')}; run again"
            for name, rows in self.rows_left.items()
            if rows and name not in self.failed
        }
        return {**self.failed, **lost}

    def _begin(self, todo: PieceTodo) -> None:
        """Record that workers have a piece. Called from another thread."""
        if todo.name in self.rows_left:
            self.progress.in_flight[todo.name, todo.part] = None

    def _handle(self, message: Message) -> None:
        # With each message: a run that lost its lease ends before it commits more.
        self.own.check()
        tracebacks.report(self.reported)
        self._take(message)
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
        for name in self.rows_left:
            stage.discard(self.plan.sink.store, name, only_errors=True)
        raise RunError(_too_many_errors(self.plan, self.progress, self.rate))

    def _release(self, todo: Todo) -> None:
        self._commit(self.rate.release(todo, self.errors[todo.shard.name]))

    def _commit(self, shards: Sequence[Shard]) -> None:
        """Start commits until too many rows have failed, also in steps after the last model."""
        for shard in shards:
            if not self.rate.is_exceeded:
                self.commits.start(self.todo[shard.name], self.staged_bytes[shard.name])
                self._record(self.commits.finished())

    def _add(self, labelled: LabelledPiece) -> None:
        receipt, shard = labelled.receipt, labelled.receipt.shard
        self.rows_before += self.kept_rows.pop(shard, 0)
        self.progress.add(labelled)
        if not labelled.is_staged:
            return
        self.staged_bytes[shard] += receipt.counts.staged_bytes
        self.errors[shard] += sum(receipt.counts.errors.values())
        self.rows_left[shard] -= labelled.num_rows
        self.log.add(receipt)
        self._blame(labelled.examples)
        if not self.rows_left[shard] and shard not in self.failed:
            self._release(self.todo[shard])

    def _blame(self, examples: Sequence[RowError]) -> None:
        """Add error rows to the few that are shown, which have as many types as possible, and log the first of each."""
        shown = [*self.progress.examples, *examples]
        kinds = [example.error_type for example in shown]
        firsts = sorted(range(len(shown)), key=lambda place: kinds[:place].count(kinds[place]))[:MOST_SHOWN]
        self.progress.examples = [shown[place] for place in sorted(firsts)]
        for shard, row, kind, message in examples:
            self.blamed[kind] += 1
            if self.blamed[kind] <= MOST_BLAMED:
                # A function of the user may quote labels, and `forget` changes no log.
                details = {} if kind == "step_failed" else {"message": message}
                self.log.event("row_blamed", shard=shard, row=row, error_type=kind, **details)

    def _fail(self, failure: ShardFailure) -> None:
        """Record that a shard is not committed; its pieces in flight do not count any more."""
        self.failed[failure.shard] = failure.reason
        in_flight = self.progress.in_flight
        # Of a copy, since `_begin` adds to it in another thread.
        for place in [place for place in list(in_flight) if place[0] == failure.shard]:
            del in_flight[place]
        self.log.add(failure)

    def _record(self, outcomes: Sequence[Outcome]) -> None:
        tracebacks.report(self.reported)
        for outcome in outcomes:
            self._take(outcome)
        self._count()

    def _take(self, message: Message | Outcome) -> None:
        match message:
            case FatalFailure():
                raise RunError(run_again(message.reason))
            case ShardFailure():
                self._fail(message)
            case LabelledPiece():
                self._add(message)
            case RetriedPiece():
                self.progress.in_flight.pop((message.shard, message.part), None)
            case ShardReceipt():
                self._committed(message)

    def _committed(self, receipt: ShardReceipt) -> None:
        shard, progress = receipt.shard, self.progress
        self.log.add(receipt)
        self._blame([RowError(shard, *example) for example in receipt.examples_behind])
        progress.behind += Counts(
            skipped={FILTERED: receipt.filtered_behind}, errors={"step_failed": receipt.failed_behind}
        )
        if not self.todo[shard].keeps_rows:
            progress.committed += receipt.counts
        progress.shards_committed += 1
        progress.new_commits += 1
        progress.unchanged += receipt.existing
        if receipt.counts.by_status[OK] and not receipt.existing:
            progress.first_shards = sorted([*progress.first_shards, shard])[:FIRST_SHARDS]
        del self.rows_left[shard], self.staged_bytes[shard], self.errors[shard]

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
