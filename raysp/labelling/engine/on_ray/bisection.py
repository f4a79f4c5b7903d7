"""Bisection of pieces that repeatedly crash workers, down to the rows at fault.

A row that crashes its worker alone becomes an error row, `worker_crashed`, and its shard is committed like any other.
Each half is read, labelled and staged by a separate task, which Ray does not retry. The loss of a node is attributed to
no row, and an out-of-memory kill only to a row that ran with no other task of the bisection beside it.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, cast

import pyarrow as pa
import ray

from raysp.corpus import sources
from raysp.errors import RayspError
from raysp.labelling.engine.on_ray.counted_attempts import SETTLE_SECONDS
from raysp.labelling.engine.workers.attempts import Attempts
from raysp.labelling.engine.workers.job import Job, PieceTodo
from raysp.labelling.engine.workers.label_actor import labelled_block, load_labelling
from raysp.labelling.engine.workers.messages import LabelledBlock, Message
from raysp.labelling.engine.workers.reader import Reader
from raysp.labelling.engine.workers.watchdog import watched
from raysp.labelling.planning.run_plan import Plan
from raysp.ops.late_steps import CARRIED
from raysp.ops.places import with_places
from raysp.ops.rows import RowStatus, statuses_table, with_waves
from raysp.sink import fault_injection, stage
from raysp.sink.layout import BlockName
from raysp.sink.receipts import ShardFailure
from raysp.sink.sinks import Sink
from raysp.words import count

if TYPE_CHECKING:
    from raysp.ops.labelling import Figures, LabellingOp

logger = logging.getLogger(__name__)

AT_ONCE = 4
ALONE = 2
"""Crashes of a row alone before it becomes an error row: one of them may be the fault of the machine."""
MAX_CRASHES = 200
"""Crashes of workers on one piece after which its shard fails."""
MAX_LOSSES = 100
"""Losses of nodes, or of workers before they started a piece, after which its shard fails."""
DIED = (ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError, ray.exceptions.OutOfMemoryError)


@dataclass
class _Search:
    """State of the bisection of one piece."""

    pending: list[tuple[int, ...]]
    crashed: list[int] = field(default_factory=list)
    alone: int = 0
    """Crashes of the current row alone."""
    crashes: int = 0
    losses: int = 0
    staged: int = 0
    """Number of staged blocks."""
    is_done: bool = False
    """Whether the last block is staged."""
    needs_room: bool = False
    """Whether the current row ran out of memory, and is tried again with no other task beside it."""

    @property
    def is_given_up(self) -> bool:
        """Whether too many workers crashed or were lost."""
        return self.crashes >= MAX_CRASHES or self.losses >= MAX_LOSSES


class _Room:
    """Slots for concurrent tasks; a task that runs alone takes all of them."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.num_taken = 0

    @contextlib.contextmanager
    def taken(self, *, alone: bool) -> Iterator[None]:
        """Wait for one slot, or all, and hold them within the block."""
        need = AT_ONCE if alone else 1
        with self.changed:
            self.changed.wait_for(lambda: self.num_taken + need <= AT_ONCE)
            self.num_taken += need
        try:
            yield
        finally:
            with self.changed:
                self.num_taken -= need
                self.changed.notify_all()


def bisect_pieces(plan: Plan, job: Job, pieces: Sequence[PieceTodo]) -> Iterator[Message]:
    """Label the rows of poisoned pieces that crash no worker. Yields messages about blocks or a shard's failure."""
    pool, settings = plan.pipeline.label.pool, plan.settings
    options: dict[str, Any] = {
        "num_cpus": settings.cpus_per_actor.number,
        "num_gpus": settings.gpus_per_actor,
        # A retry by Ray would crash another worker uncounted.
        "max_retries": 0,
    }
    if pool.memory:
        options["memory"] = pool.memory
    task = ray.remote(cast("Any", label_rows)).options(**options)
    given = ray.put(job)
    room = _Room()

    def one_piece(todo: PieceTodo) -> list[Message]:
        def label(rows: tuple[int, ...], crashed: tuple[int, ...], k: int, *, is_last: bool) -> LabelledBlock:
            labelled: LabelledBlock = ray.get(task.remote(given, todo, rows, crashed, k, is_last=is_last))
            return labelled

        store = Sink.of(job.pipeline.sink).store
        # Blocks of the first attempt were cut otherwise than those of the search.
        stage.discard(store, todo.shard.name, todo.piece)
        return list(_bisect_piece(todo, label, job.attempts, room))

    with ThreadPoolExecutor(AT_ONCE) as threads:
        for messages in threads.map(one_piece, pieces):
            yield from messages


class _Label(Protocol):
    """Function that runs `label_rows` in a separate task."""

    def __call__(self, rows: tuple[int, ...], crashed: tuple[int, ...], k: int, *, is_last: bool) -> LabelledBlock:
        """Label rows, and mark those that crashed."""
        ...


def _bisect_piece(todo: PieceTodo, label: _Label, attempts: Attempts, room: _Room) -> Iterator[Message]:
    """Find the rows of one piece at fault, stage them last as a separate block, and yield messages."""
    search = _Search([tuple(todo.rows)])
    try:
        while (search.pending or not search.is_done) and not search.is_given_up:
            is_last = not search.pending
            rows = () if is_last else search.pending.pop()
            try:
                with room.taken(alone=search.needs_room):
                    labelled = label(rows, tuple(search.crashed) if is_last else (), search.staged, is_last=is_last)
            except DIED as error:
                _judge(search, rows, error, is_own=_count_crashes(attempts, todo, rows) > 0)
                continue
            yield labelled
            search.staged += 1
            search.alone, search.needs_room, search.is_done = 0, False, is_last
        if not search.is_done:
            yield ShardFailure(todo.shard.name, _given_up(todo, search))
    except ray.exceptions.RayTaskError as error:
        yield ShardFailure(todo.shard.name, str(error.cause))
    except (RayspError, ray.exceptions.RayError) as error:
        yield ShardFailure(todo.shard.name, f"{type(error).__name__}: {error}")


def _count_crashes(attempts: Attempts, todo: PieceTodo, rows: tuple[int, ...]) -> int:
    """Return the number of workers that crashed on rows, on nodes that are alive, and reset the count."""
    work = _work_name(todo, rows)
    crashes = attempts.crashes(work)
    if crashes and len(rows) == 1:
        time.sleep(SETTLE_SECONDS)  # a node being removed may answer slightly longer than its workers
        crashes = attempts.crashes(work)
    attempts.end(work)
    return crashes


def _work_name(todo: PieceTodo, rows: tuple[int, ...]) -> str:
    return f"bisect {todo} {rows[:1]}{rows[-1:]}"


def _judge(search: _Search, rows: tuple[int, ...], error: Exception, *, is_own: bool) -> None:
    """Update the search after the loss of a worker.

    Args:
        search: search of the piece.
        rows: rows that the worker was labelling; empty if it only marked crashed ones.
        error: error reported by Ray.
        is_own: whether the worker had started these rows, on a node that is alive.
    """
    is_memory = isinstance(error, ray.exceptions.OutOfMemoryError)
    if not rows or isinstance(error, ray.exceptions.NodeDiedError) or not (is_memory or is_own):
        search.losses += 1
        search.pending += [rows] if rows else []
    elif is_memory and len(rows) == 1 and not search.needs_room:
        search.crashes += 1
        search.needs_room = True
        search.pending.append(rows)
    else:
        _narrow(search, rows)


def _narrow(search: _Search, rows: tuple[int, ...]) -> None:
    """Halve rows that crashed their worker; a single row that crashed `ALONE` workers is at fault."""
    search.crashes += 1
    if len(rows) > 1:
        search.pending += [rows[len(rows) // 2 :], rows[: len(rows) // 2]]
    elif search.alone + 1 < ALONE:
        search.alone += 1
        search.pending.append(rows)
    else:
        search.alone, search.needs_room = 0, False
        search.crashed += rows
        logger.warning("row %d crashed the workers that labelled it", rows[0])


def _given_up(todo: PieceTodo, search: _Search) -> str:
    examples = f", for example on row {search.crashed[0]}" if search.crashed else ""
    left = sum(map(len, search.pending))
    return (
        f"rows {todo.piece.first} to {todo.piece.end}: {count(search.crashes + search.losses, 'worker')} crashed or "
        f"were lost{examples}; {count(left, 'row')} still to do. See the logs of the workers for the cause, and run "
        "again"
    )


def label_rows(
    job: Job, todo: PieceTodo, rows: tuple[int, ...], crashed: tuple[int, ...], k: int, *, is_last: bool
) -> LabelledBlock:
    """Label rows of a piece on a worker, stage them as one block, and return its message. May crash the worker.

    Args:
        job: job of the run.
        todo: the piece.
        rows: rows to label.
        crashed: rows known to crash their worker, which are only marked.
        k: number of the block.
        is_last: whether this is the last block of the piece.
    """
    from raysp.ops.labelling import Figures  # torch, which the driver does not need

    fault_injection.adopt(job.fault_injection)
    labelling = _labelling(job)
    job.attempts.begin(_work_name(todo, rows))  # after the model is loaded: no row is at fault for a crash there
    results = list(_label_blocks(job, labelling, todo.shard.name, _blocks(job, todo, rows, crashed)))
    job.attempts.end(_work_name(todo, rows))
    labels = pa.concat_tables([table for table, _ in results])
    figures = Figures(
        windows=sum(figures.windows for _, figures in results),
        audio_seconds=sum(figures.audio_seconds for _, figures in results),
        padded_seconds=sum(figures.padded_seconds for _, figures in results),
        busy_seconds=sum(figures.busy_seconds for _, figures in results),
        memory_bytes=max(figures.memory_bytes for _, figures in results),
    )
    stage_id = todo.stage_id or job.stage_id
    name = BlockName(todo.shard.name, todo.piece, todo.shard.input_id, stage_id, k, k + 1 if is_last else 0)
    stage.stage(Sink.of(job.pipeline.sink).store, name, labels)
    return labelled_block(name, labels, figures, 0.0, job.settings.checkpoint.sample_rate, "salvage")


def _label_blocks(
    job: Job, labelling: "LabellingOp", shard: str, blocks: Iterator[pa.Table]
) -> "Iterator[tuple[pa.Table, Figures]]":
    """Yield labelled blocks with their figures; reading and labelling each have the usual time limit."""
    while True:
        with watched(job.hang_seconds):
            block = next(blocks, None)
        if block is None:
            return
        with watched(job.hang_seconds):
            labelled = labelling(block, shard)
        yield labelled


def _blocks(job: Job, todo: PieceTodo, rows: Sequence[int], crashed: Sequence[int]) -> Iterator[pa.Table]:
    if rows:
        yield from (block for block, _ in Reader(job).blocks(todo.shard, todo.piece, rows))
    if crashed or not rows:
        yield _failed(job, todo, crashed)


def _failed(job: Job, todo: PieceTodo, rows: Sequence[int]) -> pa.Table:
    """Return a block of rows that crashed their workers, with the columns that other blocks carry, without values."""
    statuses = [RowStatus(row) for row in rows]
    for row_status in statuses:
        row_status.fail("worker_crashed", f"each of {ALONE} workers that labelled this row alone crashed")
    block = with_waves(statuses_table(statuses), [None] * len(statuses))
    label, source = job.pipeline.label, job.pipeline.source
    if label.windows == "speech":
        block = with_places(block, [None] * len(statuses))
    if label.reads:
        read = sources.read_table(
            todo.shard, todo.piece, [*label.reads], source.storage_options, audio_root=source.audio_root
        )
        for name in label.reads:
            block = block.append_column(f"{CARRIED}{name}", read.column(name).take(pa.nulls(len(rows), pa.int64())))
    return block


_loaded: "dict[str, LabellingOp]" = {}


def _labelling(job: Job) -> "LabellingOp":
    """Return the model, cached for the next task of this process."""
    if job.fingerprint not in _loaded:
        _loaded.clear()
        _loaded[job.fingerprint] = load_labelling(job)
    return _loaded[job.fingerprint]
