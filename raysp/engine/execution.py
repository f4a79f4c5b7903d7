"""The driver's loop: receipts come in, shards that are whole are committed, what goes wrong is kept count of."""

import contextlib
import logging
from collections.abc import Callable, Sequence
from typing import cast

from raysp.engine.books import Books
from raysp.engine.commits import Commits
from raysp.engine.packing import Told
from raysp.engine.progress import Progress
from raysp.engine.salvage import Poisoned, salvage
from raysp.engine.stream import receipts
from raysp.engine.tasks import Job
from raysp.errors import RayspError, RunError
from raysp.io.shards import Piece
from raysp.pipeline import Pipeline
from raysp.planning import Plan
from raysp.sink import lease
from raysp.sink.receipts import BlockReceipt, ReceiptLog, ShardFailure, ShardReceipt

logger = logging.getLogger(__name__)

OnProgress = Callable[[Progress], None]

MIN_ROWS_FOR_ERROR_RATE = 200
RECEIPTS_A_BATCH = 500


class Execution:
    """One pass over what is to do: receipts come in, label shards are committed."""

    def __init__(
        self, plan: Plan, job: Job, own: lease.Lease, log: ReceiptLog, progress: Progress, on_progress: OnProgress
    ) -> None:
        self.plan = plan
        self.job = job
        self.own = own
        self.log = log
        self.progress = progress
        self.on_progress = on_progress
        self.books = Books(plan.todo, progress)
        self.commits = Commits(job, {todo.shard.name: todo.retry for todo in plan.todo if todo.retry})
        self.poisoned: dict[tuple[str, Piece], Poisoned] = {}

    def __call__(self) -> dict[str, str]:
        """Label and commit; gives the shards that failed, with reasons.

        Raises:
            RunError: too many error rows, the sink cannot be written, another run took over, or Ray failed.
        """
        try:
            for todo in self.plan.todo:
                if not todo.pieces:
                    self.commits.start(todo.shard)
            for told in receipts(self.plan, self.job):
                self._take(told)
            pieces = [one for one in self.poisoned.values() if one.shard.name not in self.books.failed]
            for one in pieces:  # a reader that Ray started anew may have told of their blocks again
                self.books.forget(one.shard.name, one.piece)
            for told in salvage(self.plan, self.job, pieces):
                self._take(told)
            self._settle(self.commits.rest())
            self.on_progress(self.progress)
        finally:
            with contextlib.suppress(RayspError):
                self.log.flush()
        return self.books.unfinished()

    def _take(self, told: Told) -> None:
        self.own.check()
        match told["kind"]:
            case "fatal":
                raise RunError(f"{told['reason']}. What was committed stays; run again")
            case "failure":
                self._fail(ShardFailure(str(told["shard"]), str(told["reason"])))
            case "poison":
                self._set_aside(told)
            case _:
                self._add(BlockReceipt(**cast("dict[str, object]", told["receipt"])), told)  # type: ignore[arg-type]
        self._settle(self.commits.finished())
        if len(self.log) >= RECEIPTS_A_BATCH:
            self.log.flush()
        self.on_progress(self.progress)
        _check_error_rate(self.plan.pipeline, self.progress)

    def _add(self, block: BlockReceipt, told: Told) -> None:
        self.log.add(block)
        if (shard := self.books.add(block, told)) is not None:
            self.commits.start(shard)

    def _fail(self, failure: ShardFailure) -> None:
        self.books.failed[failure.shard] = failure.reason
        self.log.add(failure)

    def _set_aside(self, told: Told) -> None:
        """Keep a piece over which workers die until the rest is through."""
        todo = self.books.todo[str(told["shard"])]
        piece = next(one for one in todo.pieces if [one.first, one.end] == [told["first"], told["end"]])
        if (todo.shard.name, piece) not in self.poisoned:
            logger.warning("%s: workers died over rows %d to %d", todo.shard.name, piece.first, piece.end)
        self.poisoned[todo.shard.name, piece] = Poisoned(todo.shard, piece, todo.retry)
        self.books.forget(todo.shard.name, piece)

    def _settle(self, outcomes: Sequence[ShardReceipt | ShardFailure]) -> None:
        for outcome in outcomes:
            if isinstance(outcome, ShardFailure):
                self._fail(outcome)
            else:
                self.log.add(outcome)
                self.books.committed(outcome.shard)


def _check_error_rate(pipeline: Pipeline, progress: Progress) -> None:
    if progress.rows < MIN_ROWS_FOR_ERROR_RATE or progress.num_errors <= pipeline.max_error_rate * progress.rows:
        return
    kinds = ", ".join(f"{count} {kind}" for kind, count in progress.errors.most_common())
    raise RunError(
        f"{progress.num_errors} of {progress.rows} rows failed ({kinds}), more than "
        f"max_error_rate={pipeline.max_error_rate}; for example {'; '.join(progress.examples)}. "
        "Mend the input or raise max_error_rate, and run again"
    )
