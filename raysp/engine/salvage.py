"""Pieces over which workers keep dying: halved until each row that kills its worker alone is found.

A row that does becomes an error row, `worker_crashed`, and its shard is committed like any other. Each half is done by
a task of its own, from reading to staging, which Ray does not repeat. The loss of a node is no row's fault, and want
of memory only that of a row which nothing else is tried beside.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

import pyarrow as pa
import ray

from raysp.engine.attempts import SETTLE_SECONDS, Attempts
from raysp.engine.packing import Told, failure
from raysp.engine.poisoned import Poisoned as Poisoned
from raysp.engine.tasks import Job, Reader, block_receipt, load_labelling
from raysp.engine.watchdog import watched
from raysp.errors import RayspError
from raysp.ops.decoding import with_waves
from raysp.ops.labelling import Figures, Labelling
from raysp.ops.rows import Fate, fates_table
from raysp.planning.plans import Plan
from raysp.sink import failing, stage
from raysp.sink.layout import BlockName
from raysp.storage.store import open_store
from raysp.words import count

logger = logging.getLogger(__name__)

AT_ONCE = 4
ALONE = 2
"""Times that a row is tried alone: a machine that fails meanwhile is not the row's fault."""
MAX_DEATHS = 200
"""Of workers over one piece, after which its shard is left for another run."""
MAX_LOSSES = 100
"""Of nodes, or of workers before they began, over one piece; then its shard is left for another run."""
DIED = (ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError, ray.exceptions.OutOfMemoryError)


@dataclass
class _Search:
    """How far one piece is."""

    pending: list[tuple[int, ...]]
    crashed: list[int] = field(default_factory=list)
    alone: int = 0
    """Deaths of the row that is tried alone."""
    deaths: int = 0
    losses: int = 0
    staged: int = 0
    """Blocks."""
    is_done: bool = False
    """Whether the last block is staged."""
    needs_room: bool = False
    """Whether the row at hand was killed for want of memory, and is tried again with nothing beside it."""

    @property
    def is_given_up(self) -> bool:
        """Whether too many workers died."""
        return self.deaths >= MAX_DEATHS or self.losses >= MAX_LOSSES


class _Room:
    """Turns of the pieces that are salvaged at once: side by side, or one with nothing beside it."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.num_taken = 0

    @contextlib.contextmanager
    def taken(self, *, alone: bool) -> Iterator[None]:
        """Wait for a turn and hold it."""
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


def salvage(plan: Plan, job: Job, pieces: Sequence[Poisoned]) -> Iterator[Told]:
    """Label what can be labelled of such pieces; yields receipts of blocks, or of a shard's failure."""
    pool, settings = plan.pipeline.label.pool, plan.settings
    asked = {"num_cpus": settings.cpus_per_actor.number, "num_gpus": settings.gpus_per_actor}
    options: dict[str, Any] = {**asked, "max_retries": 0}
    if pool.memory:
        options["memory"] = pool.memory
    task = ray.remote(cast("Any", label_rows)).options(**options)
    given = ray.put(job)
    room = _Room()

    def one_piece(one: Poisoned) -> list[Told]:
        def label(rows: tuple[int, ...], crashed: tuple[int, ...], k: int, *, is_last: bool) -> Told:
            told: Told = ray.get(task.remote(given, one, rows, crashed, k, is_last=is_last))
            return told

        store = open_store(job.pipeline.sink.url, job.pipeline.sink.storage_options)
        stage.discard(store, one.shard.name, one.piece)
        return list(_salvage_one(one, label, job.attempts, room))

    with ThreadPoolExecutor(AT_ONCE) as threads:
        for receipts in threads.map(one_piece, pieces):
            yield from receipts


class _Label(Protocol):
    """Labels some rows of a piece in a task of its own, as `label_rows`."""

    def __call__(self, rows: tuple[int, ...], crashed: tuple[int, ...], k: int, *, is_last: bool) -> Told:
        """Label rows and mark those that crashed."""
        ...


def _salvage_one(one: Poisoned, label: _Label, attempts: Attempts, room: _Room) -> Iterator[Told]:
    """Find the rows of one piece at fault, and stage them last, as a block of their own."""
    search = _Search([one.rows])
    try:
        while (search.pending or not search.is_done) and not search.is_given_up:
            is_last = not search.pending
            rows = () if is_last else search.pending.pop()
            try:
                with room.taken(alone=search.needs_room):
                    told = label(rows, tuple(search.crashed) if is_last else (), search.staged, is_last=is_last)
            except DIED as error:
                _judge(search, rows, error, is_own=_deaths(attempts, one, rows) > 0)
                continue
            yield told
            search.staged += 1
            search.alone, search.needs_room, search.is_done = 0, False, is_last
        if not search.is_done:
            yield failure(one.shard.name, _given_up(one, search))
    except ray.exceptions.RayTaskError as error:
        yield failure(one.shard.name, str(error.cause))
    except (RayspError, ray.exceptions.RayError) as error:
        yield failure(one.shard.name, f"{type(error).__name__}: {error}")


def _deaths(attempts: Attempts, one: Poisoned, rows: tuple[int, ...]) -> int:
    """Count the workers that died over rows, on nodes that live and once they had begun; and begin to count anew."""
    work = _work_name(one, rows)
    deaths = attempts.deaths(work)
    if deaths and len(rows) == 1:
        time.sleep(SETTLE_SECONDS)  # a node that is taken away may answer for a moment longer than its workers
        deaths = attempts.deaths(work)
    attempts.end(work)
    return deaths


def _work_name(one: Poisoned, rows: tuple[int, ...]) -> str:
    return f"salvage {one.shard.name} {one.piece.first}-{one.piece.end} {rows[:1]}{rows[-1:]}"


def _judge(search: _Search, rows: tuple[int, ...], error: Exception, *, is_own: bool) -> None:
    """Decide what the end of a worker says of the rows that it was at.

    Args:
        search: of the piece.
        rows: that it was at; empty where it only marked those that crashed.
        error: how Ray reports it.
        is_own: whether it had begun with them, on a node that lives.
    """
    is_memory = isinstance(error, ray.exceptions.OutOfMemoryError)
    if not rows or isinstance(error, ray.exceptions.NodeDiedError) or not (is_memory or is_own):
        search.losses += 1
        search.pending += [rows] if rows else []
    elif is_memory and len(rows) == 1 and not search.needs_room:
        search.deaths += 1
        search.needs_room = True
        search.pending.append(rows)
    else:
        _narrow(search, rows)


def _narrow(search: _Search, rows: tuple[int, ...]) -> None:
    """Halve rows that killed their worker; one that did it alone, and again, is at fault."""
    search.deaths += 1
    if len(rows) > 1:
        search.pending += [rows[len(rows) // 2 :], rows[: len(rows) // 2]]
    elif search.alone + 1 < ALONE:
        search.alone += 1
        search.pending.append(rows)
    else:
        search.alone, search.needs_room = 0, False
        search.crashed += rows
        logger.warning("row %d kills the worker that labels it", rows[0])


def _given_up(one: Poisoned, search: _Search) -> str:
    examples = f", for example over row {search.crashed[0]}" if search.crashed else ""
    left = sum(map(len, search.pending))
    return (
        f"rows {one.piece.first} to {one.piece.end}: {count(search.deaths + search.losses, 'worker')} died{examples}, "
        f"and {count(left, 'row')} still to do; look into the workers' logs for what they died of, and run again"
    )


def label_rows(
    job: Job, one: Poisoned, rows: tuple[int, ...], crashed: tuple[int, ...], k: int, *, is_last: bool
) -> Told:
    """Label some rows of a piece, on a worker that may die of it, and stage them as one block.

    Args:
        job: the run's.
        one: the piece.
        rows: to label.
        crashed: rows that are known to kill their worker, and are only marked.
        k: number of the block.
        is_last: whether it is the piece's last block.
    """
    failing.adopt(job.deaths)
    labelling = _labelling(job)
    job.attempts.begin(_work_name(one, rows))  # once the model is loaded, over which no row kills a worker
    results = list(_label_blocks(job, labelling, one.shard.name, _blocks(job, one, rows, crashed)))
    job.attempts.end(_work_name(one, rows))
    labels = pa.concat_tables([table for table, _ in results])
    figures = Figures(
        windows=sum(figures.windows for _, figures in results),
        audio_seconds=sum(figures.audio_seconds for _, figures in results),
        padded_seconds=sum(figures.padded_seconds for _, figures in results),
        busy_seconds=sum(figures.busy_seconds for _, figures in results),
    )
    stage_id = one.stage_id or job.stage_id
    name = BlockName(one.shard.name, one.piece, one.shard.input_id, stage_id, k, k + 1 if is_last else 0)
    stage.stage(open_store(job.pipeline.sink.url, job.pipeline.sink.storage_options), name, labels)
    return block_receipt(name, labels, figures, 0.0, job.windowing.sample_rate, "salvage")


def _label_blocks(
    job: Job, labelling: Labelling, shard: str, blocks: Iterator[pa.Table]
) -> Iterator[tuple[pa.Table, Figures]]:
    """Read and label one block after the other, each with the time that it has elsewhere."""
    while True:
        with watched(job.hang_seconds):
            block = next(blocks, None)
        if block is None:
            return
        with watched(job.hang_seconds):
            labelled = labelling(block, shard)
        yield labelled


def _blocks(job: Job, one: Poisoned, rows: Sequence[int], crashed: Sequence[int]) -> Iterator[pa.Table]:
    if rows:
        yield from (block for block, _ in Reader(job).blocks(one.shard, one.piece, rows))
    fates = [Fate(row) for row in crashed]
    for fate in fates:
        fate.fail("worker_crashed", f"each of {ALONE} workers that labelled this row alone died of it")
    yield with_waves(fates_table(fates), [None] * len(fates))


_loaded: dict[str, Labelling] = {}


def _labelling(job: Job) -> Labelling:
    """Keep the model for the next task of this process."""
    if job.fingerprint not in _loaded:
        _loaded.clear()
        _loaded[job.fingerprint] = load_labelling(job)
    return _loaded[job.fingerprint]
