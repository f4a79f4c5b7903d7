"""The Ray Data plan of a run: pieces in, receipts out."""

import gc
import itertools
import json
import logging
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

import pyarrow as pa

from raysp.engine.packing import Told, failure
from raysp.engine.tasks import Job, LabelActor, Reader, piece_item
from raysp.errors import RayspError, RunError, ShardError
from raysp.io.shards import PIECE_BYTES
from raysp.planning import Plan, Resources

if TYPE_CHECKING:
    import ray.data

PIECES_A_TASK = 64
PIECES_A_WAVE = 20_000
"""That enter one plan of Ray Data, whose memory grows by some kilobytes a block; then models are loaded anew."""
READER_CPUS = 0.99
"""One CPU, but never what an actor asks for: Ray Data fuses neighbours of equal requests into one worker."""


def receipts(plan: Plan, job: Job) -> Iterator[Told]:
    """Stream the corpus through decoding and the model; yields a receipt a block.

    Raises:
        RunError: Ray failed.
    """
    pieces = ((todo.shard, piece, todo.retry) for todo in plan.todo for piece in todo.pieces)
    while wave := list(itertools.islice(pieces, PIECES_A_WAVE)):
        items: list[tuple[str, float]] = []
        for shard, piece, retry in wave:
            try:
                items.append((piece_item(shard, piece, retry), shard.num_bytes * piece.num_rows / shard.num_rows))
            except ShardError as error:
                yield failure(shard.name, str(error))
        try:
            yield from _of_wave(plan, job, group(items, plan.resources))
        except (RayspError, GeneratorExit):
            raise
        except Exception as error:
            raise RunError(f"{cause(error)}. What was committed stays; run again") from error
        gc.collect()  # a plan of Ray Data and what it knows of each block refer to each other


def _of_wave(plan: Plan, job: Job, tasks: list[list[str]]) -> Iterator[Told]:
    if not tasks:
        return
    dataset = _dataset(plan, job, tasks)
    for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        for text in cast("pa.Table", batch).column("receipt").to_pylist():
            yield json.loads(cast("str", text))


def cause(error: BaseException) -> str:
    """Find the reason in what Ray wrapped: the last error that its report names, in one line."""
    named = re.findall(r"^(?:\w+\.)*(\w+(?:Error|Exception|Died\w*|Failed\w*): .+)$", str(error), re.MULTILINE)
    reasons = [line for line in named if not line.startswith(("UserCodeException", "RayTaskError"))]
    return reasons[-1] if reasons else f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"


def group(items: Sequence[tuple[str, float]], resources: Resources) -> list[list[str]]:
    """Put small neighbouring pieces into one task each, but leave enough tasks to spread.

    Args:
        items: pieces as written down, with their encoded bytes.
        resources: what there is to spread over.
    """
    most = max(1, min(PIECES_A_TASK, len(items) // max(1, int(4 * resources.cpus))))
    tasks: list[list[str]] = []
    held = 0.0
    for item, num_bytes in items:
        if not tasks or len(tasks[-1]) >= most or held + num_bytes > PIECE_BYTES:
            tasks.append([])
            held = 0.0
        tasks[-1].append(item)
        held += num_bytes
    return tasks


def _dataset(plan: Plan, job: Job, tasks: list[list[str]]) -> "ray.data.Dataset":
    import ray.data
    from ray.data import ActorPoolStrategy, DataContext

    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_options.preserve_order = False
    # Below the size of any block: each is handed on when it is yielded, not when its piece is through.
    context.target_max_block_size = 1
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # what it reports is raised as well
    pool, gpus = plan.pipeline.label.pool, plan.settings.gpus_per_actor
    reader = Reader(job)

    def read(items: pa.Table) -> Iterator[pa.Table]:
        yield from reader(items)

    pieces = ray.data.from_items([{"piece": "\n".join(task)} for task in tasks], override_num_blocks=len(tasks))
    blocks = pieces.map_batches(cast("Any", read), batch_size=1, batch_format="pyarrow", num_cpus=READER_CPUS)
    return blocks.map_batches(
        LabelActor,
        fn_constructor_args=[job],
        batch_size=1,
        batch_format="pyarrow",
        num_cpus=pool.cpus,
        num_gpus=gpus or None,
        memory=pool.memory,
        compute=ActorPoolStrategy(
            min_size=pool.low, max_size=pool.high, max_concurrent_calls_per_actor=2, enable_true_multi_threading=True
        ),
    )
