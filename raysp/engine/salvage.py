"""Pieces over which workers keep dying: halved until each row that kills its worker alone is found.

A row that does becomes an error row, `worker_crashed`, and its shard is committed like any other. Each half is done by
a task of its own, from reading to staging, which Ray does not repeat.
"""

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, cast

import pyarrow as pa
import ray

from raysp.engine.attempts import watched
from raysp.engine.packing import Told, failure
from raysp.engine.tasks import Job, Reader, block_receipt, load_labelling
from raysp.errors import RayspError
from raysp.io.shards import Piece, Shard
from raysp.io.store import open_store
from raysp.ops.decoding import with_waves
from raysp.ops.labelling import Figures, Labelling
from raysp.ops.rows import Fate, fates_table
from raysp.planning import Plan, Retry
from raysp.sink import failing, stage
from raysp.sink.layout import BlockName

logger = logging.getLogger(__name__)

AT_ONCE = 4
ALONE = 2
"""Times that a row is tried alone: a machine that fails meanwhile is not the row's fault."""
MAX_DEATHS = 200
"""Of workers over one piece, after which its shard is left for another run."""


@dataclass(frozen=True)
class Poisoned:
    """A piece that killed its workers."""

    shard: Shard
    piece: Piece
    retry: Retry | None = None

    @property
    def rows(self) -> tuple[int, ...]:
        """Give the rows to label, by their numbers in the shard."""
        return self.retry.of(self.piece) if self.retry else tuple(range(self.piece.first, self.piece.end))

    @property
    def stage_id(self) -> str | None:
        """Give what stands in for the fingerprint where rows are retried."""
        return self.retry.stage_id if self.retry else None


@dataclass
class _Search:
    """How far one piece is."""

    pending: list[tuple[int, ...]]
    crashed: list[int] = field(default_factory=list)
    alone: int = 0
    """Deaths of the row that is tried alone."""
    deaths: int = 0
    staged: int = 0
    """Blocks."""


def salvage(plan: Plan, job: Job, pieces: Sequence[Poisoned]) -> Iterator[Told]:
    """Label what can be labelled of such pieces; yields receipts of blocks, or of a shard's failure."""
    pool = plan.pipeline.label.pool
    options: dict[str, Any] = {"num_cpus": pool.cpus, "num_gpus": plan.settings.gpus_per_actor, "max_retries": 0}
    if pool.memory:
        options["memory"] = pool.memory
    task = ray.remote(cast("Any", label_rows)).options(**options)
    given = ray.put(job)
    with ThreadPoolExecutor(AT_ONCE) as threads:
        for receipts in threads.map(lambda one: list(_salvage_one(task, given, job, one)), pieces):
            yield from receipts


def _salvage_one(task: Any, given: object, job: Job, one: Poisoned) -> Iterator[Told]:  # noqa: ANN401 - a Ray task
    """Find the rows of one piece at fault, and stage them last, as a block of their own."""
    store = open_store(job.pipeline.sink.url, job.pipeline.sink.storage_options)
    stage.discard(store, one.shard.name, one.piece)
    search = _Search([one.rows])
    try:
        while search.pending and search.deaths < MAX_DEATHS:
            rows = search.pending.pop()
            try:
                yield ray.get(task.remote(given, one, rows, (), search.staged, is_last=False))
                search.staged += 1
                search.alone = 0
            except (ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError, ray.exceptions.OutOfMemoryError):
                _narrow(search, rows)
        if search.pending:
            yield failure(one.shard.name, _given_up(one, search))
            return
        yield ray.get(task.remote(given, one, (), tuple(search.crashed), search.staged, is_last=True))
    except ray.exceptions.RayTaskError as error:
        yield failure(one.shard.name, str(error.cause))
    except (RayspError, ray.exceptions.RayError) as error:
        yield failure(one.shard.name, f"{type(error).__name__}: {error}")


def _narrow(search: _Search, rows: tuple[int, ...]) -> None:
    """Halve rows that killed their worker; one that did it alone, and again, is at fault."""
    search.deaths += 1
    if len(rows) > 1:
        search.pending += [rows[len(rows) // 2 :], rows[: len(rows) // 2]]
    elif search.alone + 1 < ALONE:
        search.alone += 1
        search.pending.append(rows)
    else:
        search.alone = 0
        search.crashed += rows
        logger.warning("row %d kills the worker that labels it", rows[0])


def _given_up(one: Poisoned, search: _Search) -> str:
    examples = f", for example over row {search.crashed[0]}" if search.crashed else ""
    left = sum(map(len, search.pending))
    return (
        f"rows {one.piece.first} to {one.piece.end}: {search.deaths} workers died{examples}, and {left} rows are still "
        "to do; look into the workers' logs for what they died of, and run again"
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
    with watched(job.hang_seconds):
        results = [labelling(block, one.shard.name) for block in _blocks(job, one, rows, crashed)]
    labels = pa.concat_tables([table for table, _ in results])
    figures = Figures(
        windows=sum(figures.windows for _, figures in results),
        audio_seconds=sum(figures.audio_seconds for _, figures in results),
        padded_seconds=sum(figures.padded_seconds for _, figures in results),
        busy_seconds=sum(figures.busy_seconds for _, figures in results),
    )
    stage_id = one.stage_id or job.fingerprint
    name = BlockName(one.shard.name, one.piece, one.shard.input_id, stage_id, k, k + 1 if is_last else 0)
    stage.stage(open_store(job.pipeline.sink.url, job.pipeline.sink.storage_options), name, labels)
    return block_receipt(name, labels, figures, 0.0, job.windowing.sample_rate, "salvage")


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
