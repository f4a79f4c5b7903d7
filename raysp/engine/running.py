"""Run a pipeline on Ray Data: pieces in, blocks through the model, label shards committed as they become whole."""

import contextlib
import json
import logging
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pyarrow as pa

from raysp.engine.cluster import connected, is_cluster, local_ray
from raysp.engine.progress import Progress
from raysp.engine.tasks import Job, LabelActor, Reader, commit_shard, load_functions, piece_item
from raysp.errors import RayspError, RunError
from raysp.io.shards import PIECE_BYTES, Piece, Shard
from raysp.pipeline import Pipeline
from raysp.planning import Plan, Resources, Retry, local_resources, windowing
from raysp.sink import failing, lease
from raysp.sink.opening import begin_run, file_id, make_plan, open_checked
from raysp.sink.receipts import BlockReceipt, ReceiptLog, ShardFailure, ShardReceipt
from raysp.sink.retrying import plan_retry, recorded_pipeline
from raysp.sink.run_record import RunEntry
from raysp.sink.stage import is_complete
from raysp.specs import JsonValue

if TYPE_CHECKING:
    import ray
    import ray.data

logger = logging.getLogger(__name__)

OnProgress = Callable[[Progress], None]

MIN_ROWS_FOR_ERROR_RATE = 200
MAX_COMMITS_IN_FLIGHT = 8
RECEIPTS_A_BATCH = 500
PIECES_A_TASK = 64
READER_CPUS = 0.99
"""One CPU, but never what an actor asks for: Ray Data fuses neighbours of equal requests into one worker."""


@dataclass(frozen=True)
class RunResult:
    """What a run did."""

    sink: str
    fingerprint: str
    shards: int
    """Of the corpus."""
    shards_committed: int
    """Of the corpus, by this run or before."""
    shards_before: int
    """Committed before this run, and not done again."""
    shards_failed: dict[str, str]
    """Not committed, with the reason."""
    rows: int
    """Labelled by this run."""
    errors: dict[str, int]
    """Error rows of this run, by type."""
    error_examples: tuple[str, ...]
    audio_seconds: float
    wall_seconds: float
    """From the plan to the last commit, the start of Ray and of the model included."""
    rtfx: float
    padding_efficiency: float | None
    wait_share: float | None
    vanished: tuple[str, ...] = ()
    """Label shards whose shard is no longer there; they are kept."""

    @property
    def exit_code(self) -> int:
        """0 when every shard is committed, else 3."""
        return 3 if self.shards_failed else 0


@dataclass
class _Books:
    """What the driver remembers of shards that are not committed yet."""

    open_pieces: dict[str, set[Piece]]
    shards: dict[str, Shard]
    blocks: dict[tuple[str, Piece], set[tuple[int, int]]] = field(default_factory=dict)
    long_errors: dict[str, set[int]] = field(default_factory=dict)
    """Rows of several windows that are counted as failed, by shard."""
    failed: dict[str, str] = field(default_factory=dict)

    def block_done(self, receipt: BlockReceipt) -> Shard | None:
        """Note a staged block; give the shard if it waits for nothing more."""
        piece = Piece(receipt.first, receipt.end)
        waiting = self.open_pieces.get(receipt.shard)
        if waiting is None or piece not in waiting:
            return None
        seen = self.blocks.setdefault((receipt.shard, piece), set())
        seen.add((receipt.k, receipt.of))
        if not is_complete(seen):
            return None
        del self.blocks[receipt.shard, piece]
        waiting.discard(piece)
        if waiting:
            return None
        self.long_errors.pop(receipt.shard, None)
        return self.shards[receipt.shard]

    def new_errors(self, shard: str, long_errors: Sequence[tuple[int, str]]) -> list[str]:
        """Give the error types of rows of several windows that no other block has told of."""
        if not long_errors:
            return []
        seen = self.long_errors.setdefault(shard, set())
        new = [error_type for row, error_type in long_errors if row not in seen]
        seen.update(row for row, _ in long_errors)
        return new


def run(
    pipeline: Pipeline,
    *,
    relabel: bool = False,
    address: str | None = None,
    on_plan: Callable[[Plan], None] | None = None,
    on_progress: OnProgress | None = None,
) -> RunResult:
    """Label a corpus; run again, it goes on where it was.

    Args:
        pipeline: what to do.
        relabel: where the sink holds labels of another pipeline or of input that changed, make and replace them,
            instead of refusing; run again with it to go on.
        address: of a Ray cluster; None: RAY_ADDRESS, else a local Ray that ends with the run.
        on_plan: told what is going to be done.
        on_progress: called after every block and commit.

    Raises:
        PlanError, ChangedError, CheckpointError, StoreError: before any work.
        RunError: too many error rows, or Ray failed; what was committed stays.
    """
    with contextlib.ExitStack() as stack:
        plan = _plan(pipeline, address, stack, relabel=relabel)
        if on_plan:
            on_plan(plan)
        return _begin(plan, stack, on_progress or (lambda _: None))


def retry(
    url: str,
    storage_options: Mapping[str, object] | None = None,
    *,
    address: str | None = None,
    on_plan: Callable[[Plan], None] | None = None,
    on_progress: OnProgress | None = None,
) -> RunResult:
    """Label the error rows of a sink once more; the other rows stay as they are, value for value.

    The pipeline is the recorded one; its relative paths are relative to the working directory.

    Args:
        url: the sink.
        storage_options: of the sink; None: as recorded.
        address: of a Ray cluster; None: RAY_ADDRESS, else a local Ray that ends with the run.
        on_plan: told what is going to be done.
        on_progress: called after every block and commit.

    Raises:
        PlanError, ChangedError, CheckpointError, StoreError: before any work.
        RunError: Ray failed; what was committed stays.
    """
    pipeline = recorded_pipeline(url, storage_options)
    with contextlib.ExitStack() as stack:
        resources = stack.enter_context(connected(address)) if is_cluster(address) else local_resources(pipeline)
        plan = plan_retry(pipeline, resources)
        if on_plan:
            on_plan(plan)
        return _begin(plan, stack, on_progress or (lambda _: None))


def try_out(pipeline: Pipeline, num_rows: int, *, address: str | None = None) -> tuple[RunResult, pa.Table]:
    """Label the first rows of a corpus into a sink that is removed again.

    Returns:
        The result, and the label rows as a table.
    """
    import pyarrow.parquet as pq

    with tempfile.TemporaryDirectory(prefix="raysp-") as folder, contextlib.ExitStack() as stack:
        pipeline = replace(pipeline, sink=replace(pipeline.sink, url=folder, storage_options={}))
        plan = _plan(pipeline, address, stack, limit_rows=num_rows)
        result = _begin(plan, stack, lambda _: None)
        names = [shard.name for shard in plan.corpus.shards if shard.name not in result.shards_failed]
        tables = [pq.read_table(Path(folder) / name) for name in names]
        return result, pa.concat_tables(tables) if tables else pa.table({"error_type": pa.array([], pa.string())})


def _plan(
    pipeline: Pipeline,
    address: str | None,
    stack: contextlib.ExitStack,
    *,
    limit_rows: int | None = None,
    relabel: bool = False,
) -> Plan:
    """Plan for the cluster if there is one; a local Ray is not started before it is known that there is work."""
    if not is_cluster(address):
        return make_plan(pipeline, local_resources(pipeline), limit_rows=limit_rows, relabel=relabel)
    return make_plan(pipeline, stack.enter_context(connected(address)), limit_rows=limit_rows, relabel=relabel)


def _begin(plan: Plan, stack: contextlib.ExitStack, on_progress: OnProgress) -> RunResult:
    entry = RunEntry.now(resolved=_resolved(plan))
    deaths = failing.arm()
    store = open_checked(plan.pipeline)
    own = stack.enter_context(lease.held(store))
    begin_run(plan, entry, store)
    progress = Progress(
        rows_total=plan.rows_todo, shards_total=len(plan.corpus.shards), shards_committed=len(plan.done)
    )
    failed: dict[str, str] = {}
    if plan.todo:
        stack.enter_context(local_ray(plan.resources))
        failed = _execute(plan, _job(plan, deaths), own, ReceiptLog(store, entry.run_id), progress, on_progress)
    with failing.passing("run_finished"):
        own.release()
    return _result(plan, progress, {**plan.corpus.unreadable, **failed})


def _resolved(plan: Plan) -> dict[str, JsonValue]:
    settings = plan.settings
    return {
        "dtype": settings.dtype,
        "device": settings.device,
        "batch_seconds": settings.batch_seconds,
        "block_seconds": settings.block_seconds,
        "gpus_per_actor": settings.gpus_per_actor,
    }


def _job(plan: Plan, deaths: Mapping[str, str]) -> Job:
    label, settings = plan.pipeline.label, plan.settings
    schema = pa.schema([f for output in label.outputs for f in output.schema()])
    return Job(
        pipeline=plan.pipeline,
        fingerprint=plan.fingerprint,
        windowing=windowing(settings.checkpoint, label),
        block_seconds=settings.block_seconds,
        batch_seconds=settings.batch_seconds,
        dtype=settings.dtype,
        device=settings.device,
        output_schema=schema,
        metadata={"checkpoint_digest": str(plan.parts[_digest_key(plan)]), "dtype": settings.dtype},
        file_id=file_id(plan.pipeline),
        relabel=plan.relabel,
        deaths=deaths,
        functions=load_functions(plan.pipeline),
    )


def _digest_key(plan: Plan) -> str:
    return next(key for key in plan.parts if key.endswith("checkpoint_digest"))


def _execute(
    plan: Plan, job: Job, own: lease.Lease, receipts: ReceiptLog, progress: Progress, on_progress: OnProgress
) -> dict[str, str]:
    """Label and commit; returns the shards that failed, with reasons."""
    books = _Books(
        open_pieces={todo.shard.name: set(todo.pieces) for todo in plan.todo},
        shards={todo.shard.name: todo.shard for todo in plan.todo},
    )
    commits = _Commits(job, {todo.shard.name: todo.retry for todo in plan.todo if todo.retry})
    try:
        for todo in plan.todo:
            if not todo.pieces:
                commits.start(todo.shard)
        for receipt in _receipts(plan, job):
            own.check()
            if receipt["kind"] == "fatal":
                raise RunError(f"{receipt['reason']}. What was committed stays; run again")
            if receipt["kind"] == "failure":
                failure = ShardFailure(str(receipt["shard"]), str(receipt["reason"]))
                books.failed[failure.shard] = failure.reason
                receipts.add(failure)
                continue
            block = BlockReceipt(**cast("dict[str, object]", receipt["receipt"]))  # type: ignore[arg-type]
            receipts.add(block)
            _count(progress, block, receipt)
            progress.errors.update(books.new_errors(block.shard, cast("list[tuple[int, str]]", receipt["long_errors"])))
            if (shard := books.block_done(block)) is not None and shard.name not in books.failed:
                commits.start(shard)
            _settle_commits(commits.finished(), books, progress, receipts)
            if len(receipts) >= RECEIPTS_A_BATCH:
                receipts.flush()
            on_progress(progress)
            _check_error_rate(plan.pipeline, progress)
        _settle_commits(commits.rest(), books, progress, receipts)
        on_progress(progress)
    finally:
        with contextlib.suppress(RayspError):
            receipts.flush()
    return _unfinished(books)


def _unfinished(books: _Books) -> dict[str, str]:
    """Compare receipts with the plan: what gave none is named, never passed over."""
    lost = {
        name: f"{len(pieces)} piece(s) gave no result; run again"
        for name, pieces in books.open_pieces.items()
        if pieces and name not in books.failed
    }
    return {**books.failed, **lost}


def _count(progress: Progress, block: BlockReceipt, receipt: dict[str, object]) -> None:
    progress.add_block(block.rows, block.audio_seconds)
    progress.real_samples += block.real_samples
    progress.padded_samples += block.padded_samples
    progress.busy_seconds += block.forward_seconds
    progress.wait_seconds += block.load_seconds
    progress.errors.update(cast("dict[str, int]", receipt["errors"]))
    progress.examples = [*progress.examples, *cast("list[str]", receipt["examples"])][:5]


def _check_error_rate(pipeline: Pipeline, progress: Progress) -> None:
    if progress.rows < MIN_ROWS_FOR_ERROR_RATE or progress.num_errors <= pipeline.max_error_rate * progress.rows:
        return
    kinds = ", ".join(f"{count} {kind}" for kind, count in progress.errors.most_common())
    raise RunError(
        f"{progress.num_errors} of {progress.rows} rows failed ({kinds}), more than "
        f"max_error_rate={pipeline.max_error_rate}; for example {'; '.join(progress.examples)}. "
        "Mend the input or raise max_error_rate, and run again"
    )


def _settle_commits(
    outcomes: Sequence[ShardReceipt | ShardFailure], books: _Books, progress: Progress, receipts: ReceiptLog
) -> None:
    for outcome in outcomes:
        receipts.add(outcome)
        if isinstance(outcome, ShardFailure):
            books.failed[outcome.shard] = outcome.reason
        else:
            progress.shards_committed += 1
            del books.open_pieces[outcome.shard]


class _Commits:
    """Commit tasks in flight; they use no CPU slot, so that decoding never keeps one waiting."""

    def __init__(self, job: Job, retries: Mapping[str, Retry]) -> None:
        import ray

        self.ray = ray
        self.retries = retries
        self.job = ray.put(job)
        self.task = ray.remote(commit_shard).options(num_cpus=0, max_retries=3, scheduling_strategy="SPREAD")
        self.in_flight: list[ray.ObjectRef[ShardReceipt | ShardFailure]] = []
        self.waiting: list[Shard] = []

    def start(self, shard: Shard) -> None:
        """Commit a shard as soon as there is room."""
        self.waiting.append(shard)
        self._fill()

    def _fill(self) -> None:
        while self.waiting and len(self.in_flight) < MAX_COMMITS_IN_FLIGHT:
            shard = self.waiting.pop(0)
            self.in_flight.append(self.task.remote(self.job, shard, self.retries.get(shard.name)))

    def finished(self) -> list[ShardReceipt | ShardFailure]:
        """Collect what is done by now, without waiting."""
        if not self.in_flight:
            return []
        ready, self.in_flight = self.ray.wait(self.in_flight, num_returns=len(self.in_flight), timeout=0)
        self._fill()
        return [self.ray.get(one) for one in ready]

    def rest(self) -> list[ShardReceipt | ShardFailure]:
        """Wait for all."""
        outcomes: list[ShardReceipt | ShardFailure] = []
        while self.in_flight or self.waiting:
            self._fill()
            ready, self.in_flight = self.ray.wait(self.in_flight, num_returns=1)
            outcomes += [self.ray.get(one) for one in ready]
        return outcomes


def _receipts(plan: Plan, job: Job) -> Iterator[dict[str, object]]:
    """Stream the corpus through decoding and the model; yields a receipt a block."""
    tasks = _group([(todo.shard, piece, todo.retry) for todo in plan.todo for piece in todo.pieces], plan.resources)
    if not tasks:
        return
    dataset = _dataset(plan, job, tasks)
    try:
        for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            for text in cast("pa.Table", batch).column("receipt").to_pylist():
                yield json.loads(cast("str", text))
    except (RayspError, GeneratorExit):
        raise
    except Exception as error:
        raise RunError(f"{_cause(error)}. What was committed stays; run again") from error


def _cause(error: BaseException) -> str:
    """Find the reason in what Ray wrapped: the last error that its report names, in one line."""
    named = re.findall(r"^(?:\w+\.)*(\w+(?:Error|Exception|Died\w*|Failed\w*): .+)$", str(error), re.MULTILINE)
    reasons = [line for line in named if not line.startswith(("UserCodeException", "RayTaskError"))]
    return reasons[-1] if reasons else f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"


def _group(pieces: Sequence[tuple[Shard, Piece, Retry | None]], resources: Resources) -> list[list[str]]:
    """Put small neighbouring pieces into one task each, but leave enough tasks to spread."""
    most = max(1, min(PIECES_A_TASK, len(pieces) // max(1, int(4 * resources.cpus))))
    tasks: list[list[str]] = []
    held = 0.0
    for shard, piece, retry in pieces:
        num_bytes = shard.num_bytes * piece.num_rows / max(shard.num_rows, 1)
        if not tasks or len(tasks[-1]) >= most or held + num_bytes > PIECE_BYTES:
            tasks.append([])
            held = 0.0
        tasks[-1].append(piece_item(shard, piece, retry))
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


def _result(plan: Plan, progress: Progress, failed: dict[str, str]) -> RunResult:
    return RunResult(
        sink=plan.pipeline.sink.url,
        fingerprint=plan.fingerprint,
        shards=len(plan.corpus.shards) + len(plan.corpus.unreadable),
        shards_committed=progress.shards_committed,
        shards_before=len(plan.done),
        shards_failed=failed,
        rows=progress.rows,
        errors=dict(progress.errors),
        error_examples=tuple(progress.examples),
        audio_seconds=progress.audio_seconds,
        wall_seconds=progress.wall_seconds,
        rtfx=progress.rtfx,
        padding_efficiency=progress.padding_efficiency,
        wait_share=progress.wait_share,
        vanished=plan.corpus.vanished,
    )
