"""The Ray Data plan of a run, from pieces to messages."""

import itertools
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import pyarrow as pa

from raysp.cluster.resources import Resources
from raysp.cluster.waiting import Waiting, cluster_nodes, node_totals
from raysp.corpus.shards import PIECE_BYTES
from raysp.errors import RayspError, RunError
from raysp.labelling.engine.execution import OnPiece
from raysp.labelling.engine.on_ray.model_loads import FailedNodes, allow_failures, cause
from raysp.labelling.engine.on_ray.plan_input import MAX_TASK_BYTES, Feed
from raysp.labelling.engine.run_events import RunEvents
from raysp.labelling.engine.workers.job import Job, serialised
from raysp.labelling.engine.workers.label_actor import LabelActor, calls_at_once
from raysp.labelling.engine.workers.messages import Message, read_messages
from raysp.labelling.engine.workers.reader import Reader
from raysp.labelling.planning.run_plan import Plan
from raysp.sink.receipts import ShardFailure
from raysp.words import RUN_AGAIN

if TYPE_CHECKING:
    import ray.data
    from ray.data import DataContext

PIECES_A_TASK = 64
READER_CPUS = 0.99
"""About one CPU, but never the request of an actor: Ray Data fuses operators of equal requests into one worker."""
TASKS_AHEAD = 64
"""Least number of unfinished tasks submitted to Ray Data; more if there are many CPUs."""
TASKS_AHEAD_A_CPU = 4


def label(plan: Plan, job: Job, on_piece: OnPiece, events: RunEvents) -> Generator[Message]:
    """Stream the corpus through decoding and the model, and yield a message per block.

    Args:
        plan: the plan.
        job: job of the run.
        on_piece: called with each piece that is submitted to Ray, from the thread of Ray Data.
        events: event log of the run.

    Raises:
        RunError: Ray failed.
    """
    failures: deque[ShardFailure] = deque()
    tasks = group(_items(plan, failures, on_piece), plan.resources, sum(len(todo.pieces) for todo in plan.todo))
    try:
        for message in _stream(plan, job, tasks, events):
            yield message
            yield from _taken(failures)
        # A plan whose last pieces all failed, or whose only pieces did, has no message after them.
        yield from _taken(failures)
    except (RayspError, GeneratorExit):
        raise
    except Exception as error:
        raise RunError(f"{cause(error)}. {RUN_AGAIN}") from error


def _taken(failures: deque[ShardFailure]) -> Iterator[ShardFailure]:
    while failures:
        yield failures.popleft()


def _items(plan: Plan, failures: deque[ShardFailure], on_piece: OnPiece) -> Iterator[tuple[str, float]]:
    """Yield serialised pieces with their encoded bytes; pieces that cannot be serialised become failures."""
    for one in serialised(plan.todo):
        if isinstance(one, ShardFailure):
            failures.append(one)
        else:
            todo, item = one
            on_piece(todo)
            yield item, todo.shard.num_bytes * todo.piece.num_rows / todo.shard.num_rows


def _stream(plan: Plan, job: Job, tasks: Iterator[list[str]], events: RunEvents) -> Iterator[Message]:
    ahead = max(TASKS_AHEAD, int(TASKS_AHEAD_A_CPU * plan.resources.cpus))
    if not (first := list(itertools.islice(tasks, ahead))):
        return
    actor = _actor_request(plan)
    nodes = FailedNodes(job.attempts.nodes_without_model, node_totals, actor)
    waiting = Waiting(
        job.attempts.activity,
        partial(cluster_nodes, nodes.avoided),
        actor=actor,
        reader={"CPU": READER_CPUS},
        on_warning=events.waiting,
    )
    feed = Feed(tasks, ahead, waiting, nodes, events)
    try:
        dataset = _dataset(plan, job, first, feed)
        for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            yield from read_messages(cast("pa.Table", batch))
    finally:
        feed.detach()
    if feed.error is not None:
        raise feed.error


def _actor_request(plan: Plan) -> dict[str, float]:
    """Return the resources that a model actor requests."""
    settings, memory = plan.settings, plan.pipeline.label.pool.memory
    requests = {"CPU": settings.cpus_per_actor.number, "GPU": settings.gpus_per_actor, "memory": memory or 0}
    return {name: float(amount) for name, amount in requests.items() if amount}


def group(items: Iterable[tuple[str, float]], resources: Resources, num_items: int) -> Iterator[list[str]]:
    """Group small neighbouring pieces into tasks, leaving enough tasks to distribute.

    Args:
        items: serialised pieces with their encoded bytes; consumed lazily.
        resources: resources to distribute tasks over.
        num_items: approximate number of items.
    """
    most = max(1, min(PIECES_A_TASK, num_items // max(1, int(4 * resources.cpus))))
    task: list[str] = []
    held = written = 0.0
    for item, num_bytes in items:
        full = len(task) >= most or held + num_bytes > PIECE_BYTES or written + len(item) > MAX_TASK_BYTES
        if task and full:
            yield task
            task, held, written = [], 0.0, 0.0
        task.append(item)
        held, written = held + num_bytes, written + len(item)
    if task:
        yield task


def _dataset(plan: Plan, job: Job, first: list[list[str]], feed: Feed) -> "ray.data.Dataset":
    import ray.data
    from ray.data import ActorPoolStrategy

    pool, size, gpus = plan.pipeline.label.pool, plan.pool_size, plan.settings.gpus_per_actor
    searches = any(getattr(one, "beams", 1) > 1 for one in plan.pipeline.label.outputs)
    reader = Reader(job)

    def read(items: pa.Table) -> Iterator[pa.Table]:
        yield from reader(items)

    pieces = ray.data.from_items([{"piece": "\n".join(task)} for task in first], override_num_blocks=len(first))
    _configure(pieces.context)
    allow_failures(pieces.context, size.low)
    feed.attach(pieces.context)
    blocks = pieces.map_batches(cast("Any", read), batch_size=1, batch_format="pyarrow", num_cpus=READER_CPUS)
    return blocks.map_batches(
        LabelActor,
        fn_constructor_args=[job],
        batch_size=1,
        batch_format="pyarrow",
        num_cpus=plan.settings.cpus_per_actor.number,
        num_gpus=gpus or None,
        memory=pool.memory,
        compute=ActorPoolStrategy(
            # A block is prepared or staged while the model runs over others.
            min_size=size.low,
            max_size=size.high,
            max_concurrent_calls_per_actor=calls_at_once(plan.settings.device, searches=searches),
            enable_true_multi_threading=True,
        ),
    )


def _configure(context: "DataContext") -> None:
    """Set options in a dataset's copy of the context, so that the caller's context does not change."""
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_options.preserve_order = False
    # Below the size of any block: each is passed on when it is yielded, not at the end of its piece.
    context.target_max_block_size = 1
    context.execution_no_progress_timeout_s = -1  # `waiting` waits for a busy cluster, with warnings
