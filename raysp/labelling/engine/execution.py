"""The driver's loop, which collects messages of workers, commits complete shards and counts failures."""

import contextlib
import logging
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NoReturn, Protocol, TypeVar

from raysp import tracebacks
from raysp.corpus.shards import Piece, Shard
from raysp.errors import RayspError, RunError, StoreError
from raysp.labelling.engine.error_rate import ErrorRate
from raysp.labelling.engine.open_shards import OpenShards
from raysp.labelling.engine.run_events import RunEvents
from raysp.labelling.engine.run_progress import Progress
from raysp.labelling.engine.run_result import describe
from raysp.labelling.engine.workers.job import Job, PieceTodo
from raysp.labelling.engine.workers.messages import FatalFailure, LabelledBlock, Message, PoisonedPiece
from raysp.labelling.planning.run_plan import Plan
from raysp.ops.remedies import remedy
from raysp.sink import lease, stopped_runs
from raysp.sink.receipts import ReceiptLog, ShardFailure, ShardReceipt
from raysp.sink.todo import Retry
from raysp.words import RUN_AGAIN, count

if TYPE_CHECKING:
    from raysp.ops.passes.measured_budget import MeasuredBudget

logger = logging.getLogger(__name__)

OnProgress = Callable[[Progress], None]
OnPiece = Callable[[PieceTodo], None]

RECEIPTS_A_BATCH = 500
RECEIPTS_SECONDS = 30.0
"""Time after which a partial batch of receipts is written, so that `raysp status` shows them."""
LAST_COMMITS_SECONDS = 60
"""Time that a stopping run waits for commits in flight."""

T = TypeVar("T")


Outcome = ShardReceipt | ShardFailure


class Committing(Protocol):
    """Commits in flight."""

    def start(self, shard: Shard, staged_bytes: int) -> None:
        """Queue the commit of a shard with this number of staged bytes."""

    def begun(self) -> list[str]:
        """Return the names of shards whose commit has started and is not known to have ended."""

    def finished(self) -> list[Outcome]:
        """Return the outcomes of commits that have ended, without waiting."""

    def rest(self) -> Iterator[list[Outcome]]:
        """Wait for all commits, and yield new outcomes, possibly none, at least every second."""

    def stop(self, seconds: float) -> list[Outcome]:
        """Start no more commits, wait at most `seconds` for those in flight, and return their outcomes."""


class Workers(Protocol):
    """Workers that label pieces and commit shards: on Ray (`on_ray`), or in this process (`here`)."""

    def label(self, plan: Plan, job: Job, on_piece: OnPiece) -> Generator[Message]:
        """Label the pieces of a plan, and yield a message per block; `on_piece` is called with each piece taken."""

    def bisect(self, plan: Plan, job: Job, pieces: Sequence[PieceTodo]) -> Iterator[Message]:
        """Label pieces that crash workers, and yield messages."""

    def commits(self, job: Job, retries: Mapping[str, Retry]) -> Committing:
        """Return an empty set of commits; `retries` is keyed by names of shards."""


class Execution:
    """One execution of a plan: messages are collected and label shards committed."""

    def __init__(
        self,
        plan: Plan,
        job: Job,
        own: lease.Lease,
        log: ReceiptLog,
        progress: Progress,
        on_progress: OnProgress,
        workers: Workers,
        events: RunEvents,
    ) -> None:
        self.plan = plan
        self.job = job
        self.own = own
        self.log = log
        self.progress = progress
        self.on_progress = on_progress
        self.workers = workers
        self.events = events
        self.open_shards = OpenShards(plan.todo, progress)
        self.commits = workers.commits(job, {todo.shard.name: todo.retry for todo in plan.todo if todo.retry})
        self.poisoned: dict[tuple[str, Piece], PieceTodo] = {}
        self.rate = ErrorRate(plan.pipeline.max_error_rate)
        self.retried: set[str] = set()
        """Shards whose rows outside the retry are counted."""
        self.flushed = time.monotonic()
        self.flawed: list[str] = []
        """Shards committed with error rows."""
        self.reported: set[str] = set()
        """Errors whose tracebacks were logged."""

    def __call__(self) -> dict[str, str]:
        """Label and commit, and return the shards that failed, with reasons.

        Raises:
            RunError: too many error rows, the sink cannot be written, another run took over, or Ray failed.
        """
        try:
            for todo in self.plan.todo:
                if not todo.pieces:
                    self._commit(self.rate.release(todo))
            self._label()
            self.on_progress(self.progress)
        finally:
            with contextlib.suppress(RayspError):
                self.log.flush()
        return self.open_shards.unfinished()

    def _label(self) -> None:
        """Label the pieces of the plan, those that crash workers last, and commit complete shards."""
        with contextlib.closing(self.workers.label(self.plan, self.job, self._submit)) as messages:
            for message in messages:
                self._handle(message)
        pieces = [one for one in self.poisoned.values() if one.shard.name not in self.open_shards.failed]
        self.poisoned = {}
        for one in pieces:  # a reader that Ray restarted may have reported their blocks again
            self._forget(one.shard.name, one.piece)
        for message in self.workers.bisect(self.plan, self.job, pieces):
            self._handle(message)
        self._commit(self.rate.released(at_end=True))
        for outcomes in self.commits.rest():
            self._settle(outcomes)
            self.on_progress(self.progress)  # raises a requested stop that another library has swallowed

    def _submit(self, todo: PieceTodo) -> None:
        self.open_shards.submit(todo.shard.name, todo.piece)

    def _handle(self, message: Message) -> None:
        # With each message: a run that lost its lease ends before it commits more.
        self.own.check()
        tracebacks.report(self.reported)
        match message:
            case FatalFailure():
                raise RunError(f"{message.reason}. {RUN_AGAIN}")
            case ShardFailure():
                self._fail(message)
            case PoisonedPiece():
                self._defer(message)
            case LabelledBlock():
                self._add(message)
        # Without waiting: the next messages are not held up by commits.
        self._settle(self.commits.finished())
        if len(self.log) >= RECEIPTS_A_BATCH or time.monotonic() - self.flushed > RECEIPTS_SECONDS:
            self.log.flush()
            self.flushed = time.monotonic()
        self.on_progress(self.progress)
        if self.rate.is_exceeded:
            self._stop()
        self._commit(self.rate.released())

    def _stop(self) -> NoReturn:
        """End the run so that none of its error rows remain.

        The stop is recorded first. From then on, even after a crash, staged results are not reused, and the next run
        labels the error rows committed so far again. A retry needs no record: its staged results are never reused, and
        error rows that it committed are for the next retry.
        """
        # Commits that have begun may still succeed, so their shards count as committed with error rows.
        begun = [*self.flawed, *self.commits.begun()]
        if any(todo.retry is None for todo in self.plan.todo):
            stopped_runs.record(self.plan.sink.store, begun)
        self._settle(self.commits.stop(LAST_COMMITS_SECONDS))
        raise RunError(_too_many_errors(self.plan, self.progress, self.rate))

    def _commit(self, shards: Sequence[Shard]) -> None:
        for shard in shards:
            self.commits.start(shard, self.open_shards.staged_bytes[shard.name])

    def _add(self, labelled: LabelledBlock) -> None:
        self.log.add(labelled.receipt)
        self.events.rows_blamed(labelled)
        if labelled.measured is not None:
            self._record(labelled.measured)
        shard = self._counted(labelled.receipt.shard, lambda: self.open_shards.add(labelled))
        if shard is not None:
            self._commit(self.rate.release(self.open_shards.todo[shard.name]))

    def _record(self, measured: "MeasuredBudget") -> None:
        """Record a measured size of passes for later runs; a store that fails costs them a measurement."""
        from raysp.sink.choices import measured_budgets

        job = self.job
        of_model = {"dtype": job.settings.dtype, "checkpoint_digest": job.metadata["checkpoint_digest"]}
        try:
            is_first = measured_budgets.record(self.plan.sink.store, measured, **of_model)
        except StoreError as error:
            logger.warning("the measured size of passes is not recorded: %s", error)
            is_first = False
        self.events.passes_measured(measured, is_recorded=is_first)

    def _forget(self, shard: str, piece: Piece) -> None:
        self._counted(shard, lambda: self.open_shards.forget(shard, piece))

    def _counted(self, shard: str, count: Callable[[], T]) -> T:
        """Run `count`, and add the change of its counts to the error rate; rows outside a retry count as labelled."""
        rows, errors = self.progress.rows, self.progress.num_errors
        found = count()
        todo = self.open_shards.todo.get(shard)
        if todo is not None:
            if todo.retry is not None and shard not in self.retried:
                self.retried.add(shard)
                self.rate.add(shard, todo.shard.num_rows - todo.num_rows, 0)
            self.rate.add(shard, self.progress.rows - rows, self.progress.num_errors - errors)
        return found

    def _fail(self, failure: ShardFailure) -> None:
        self.open_shards.fail(failure.shard, failure.reason)
        self.events.shard_failed(failure)
        self.log.add(failure)

    def _defer(self, poisoned: PoisonedPiece) -> None:
        """Defer a piece that crashes workers until all others are done."""
        todo, piece = self.open_shards.todo[poisoned.shard], poisoned.piece
        if (todo.shard.name, piece) not in self.poisoned:
            logger.warning("%s: workers crashed on rows %d to %d", todo.shard.name, piece.first, piece.end)
            self.events.piece_failed(poisoned)
        self.poisoned[todo.shard.name, piece] = PieceTodo(todo.shard, piece, todo.retry)
        self._forget(todo.shard.name, piece)

    def _settle(self, outcomes: Sequence[Outcome]) -> None:
        tracebacks.report(self.reported)
        for outcome in outcomes:
            if isinstance(outcome, ShardFailure):
                self._fail(outcome)
            else:
                self.log.add(outcome)
                self.events.shard_committed(outcome)
                if not self.open_shards.todo[outcome.shard].keeps_rows:
                    self.progress.committed.update({"ok": outcome.ok, **outcome.errors_by_type})
                self.open_shards.committed(outcome)
                if outcome.error:
                    self.flawed.append(outcome.shard)


def _too_many_errors(plan: Plan, progress: Progress, rate: ErrorRate) -> str:
    kinds = ", ".join(f"{count} {kind}" for kind, count in progress.errors.most_common())
    examples = "; ".join(describe(progress.examples, plan.corpus.shards, plan.pipeline))
    [(most, _)] = progress.errors.most_common(1)
    return (
        f"{rate.num_errors:,} of {count(rate.rows, 'row')} failed ({kinds}), more than "
        f"max_error_rate={plan.pipeline.max_error_rate}; for example {examples}. For {most}: "
        f"{remedy(most)}. Correct the input or raise max_error_rate, and run again: these rows are "
        "labelled again"
    )
