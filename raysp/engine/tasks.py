"""Code that runs on workers: thin wrappers of ops and sink, which are independent of Ray."""

import atexit
import functools
import itertools
import json
import logging
import os
import pickle
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, cast

import numpy as np
import pyarrow as pa

from raysp import assembly
from raysp.corpus import sources
from raysp.corpus.shards import Piece, Shard
from raysp.corpus.sources import read_table
from raysp.engine import loading, watchdog
from raysp.engine.attempts import MAX_DEATHS, Attempts
from raysp.engine.packing import Told, failure, pack, pack_told, poison, receipt_row, unpack
from raysp.engine.watchdog import watched
from raysp.errors import RayspError, RunError, ShardError, StoreError
from raysp.ops.rows import ERROR, SKIPPED
from raysp.planning.checkpoints import check_digest, checkpoint_folder
from raysp.planning.kept_columns import read_source_columns, text_columns
from raysp.planning.plans import Settings
from raysp.planning.replaced import find_replaced
from raysp.sink import commit, failing, stage
from raysp.sink.layout import BlockName
from raysp.sink.receipts import BlockReceipt, ShardFailure, ShardReceipt
from raysp.sink.recommitting import recommit
from raysp.sink.recordings import ChangedRecordingsError
from raysp.sink.todo import Retry
from raysp.specs.code import UserCode
from raysp.specs.pipeline import Pipeline, load_function
from raysp.specs.steps import Keep
from raysp.storage.store import UnusableError, open_store
from raysp.words import count

if TYPE_CHECKING:
    from raysp.audio.isolation import Decoder
    from raysp.ops.labelling import Figures, Labelling

logger = logging.getLogger(__name__)

MAX_EXAMPLES = 3
SPARE_PLACES = 4
"""Markers yielded beyond the number of recorded blocks: the last report before a crash may be lost."""


@dataclass(frozen=True)
class Job:
    """Data that workers need, the same for every task of a run."""

    pipeline: Pipeline
    settings: Settings
    """Resolved settings of the plan; the path of the checkpoint is that of the driver."""
    fingerprint: str
    stage_id: str
    """Staging id of the plan."""
    output_schema: pa.Schema
    metadata: Mapping[str, str]
    file_id: str
    relabel: bool
    deaths: Mapping[str, str]
    """Settings of the fault injection of `sink.failing`, for tests."""
    code: UserCode
    """Code from outside raysp that workers import."""
    functions: Mapping[str, Callable[..., object]]
    """Functions of the main program, by their names in the pipeline; pickled by value."""
    attempts: Attempts
    """Client of the ledger, to which workers report starts and ends of work."""
    hang_seconds: float
    """Time after which a single operation of a worker counts as hung; 0: no limit."""

    def __reduce__(self) -> tuple[Callable[..., "Job"], tuple[UserCode, bytes, dict[str, object]]]:
        """Pickle so that a worker installs the user's code before it unpickles values that use it."""
        from ray import cloudpickle

        values = {one.name: getattr(self, one.name) for one in fields(self)}
        made_of_code = {name: values.pop(name) for name in ("pipeline", "functions")}
        return _arrived, (self.code, cloudpickle.dumps(made_of_code), values)  # type: ignore[no-untyped-call]


def _arrived(code: UserCode, made_of_code: bytes, values: dict[str, object]) -> Job:
    """Restore the job on a worker, before torch is imported there."""
    # Waiting threads of a model sleep: spinning takes the core that decoding and the driver need, and doubles the CPU
    # time of two threads if other programs run (docs/performance.md).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    code.install()
    return Job(**pickle.loads(made_of_code), **values)  # type: ignore[arg-type]


def load_functions(pipeline: Pipeline) -> dict[str, Callable[..., object]]:
    """Return the functions of a pipeline that the main program defines, which workers cannot import."""
    names = [step.where for step in pipeline.steps if isinstance(step, Keep) and isinstance(step.where, str)]
    mine = [name for name in names if name.startswith("__main__:")]
    return {name: cast("Callable[..., object]", load_function(name)) for name in mine}


def piece_item(shard: Shard, piece: Piece, retry: Retry | None = None) -> str:
    """Serialise a piece for `Reader`, or its retried rows."""
    part = {"retry": {"stage_id": retry.stage_id, "rows": retry.of(piece)}} if retry else {}
    return json.dumps({**asdict(sources.narrow(shard, piece)), "pieces": [[piece.first, piece.end]], **part})


def read_item(text: str) -> tuple[Shard, Piece, Retry | None]:
    """Parse an item of `piece_item`."""
    found = json.loads(text)
    piece = Piece(*found.pop("pieces")[0])
    retry = found.pop("retry", None)
    return Shard(**found, pieces=(piece,)), piece, Retry(**retry) if retry else None


class Reader:
    """Reader and decoder of pieces, which yields packed blocks."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.attempts = job.attempts

    def __call__(self, items: pa.Table) -> Iterator[pa.Table]:
        """Yield packed blocks of the pieces in column `piece`, which one task reads."""
        pieces = [read_item(text) for text in items.column("piece")[0].as_py().split("\n")]
        task = f"read {pieces[0][0].name} {pieces[0][1].first}"
        deaths = self.attempts.begin(task)
        for shard, piece, retry in pieces:
            try:
                if deaths:
                    yield from self._carefully(task, shard, piece, retry)
                else:
                    yield from self._packed(task, shard, piece, retry)
            except RayspError as error:
                yield pack_told(failure(shard.name, str(error)))
            except Exception as error:
                yield pack_told(failure(shard.name, f"{type(error).__name__}: {error}"))
        self.attempts.end(task)

    def _carefully(self, task: str, shard: Shard, piece: Piece, retry: Retry | None) -> Iterator[pa.Table]:
        """Yield blocks, or poison markers after MAX_DEATHS crashes. Used when workers have crashed on this task.

        Ray identifies the yields of a retried task by position alone. The markers therefore cover the positions of all
        blocks that may have been yielded before.
        """
        if (deaths := self.attempts.begin(_piece_name(shard, piece))) >= MAX_DEATHS:
            places = self.attempts.reached(task, _piece_name(shard, piece)) + SPARE_PLACES
            yield from (pack_told(poison(shard.name, piece, deaths)) for _ in range(places))
        else:
            yield from self._packed(task, shard, piece, retry)
        self.attempts.end(_piece_name(shard, piece))

    def _packed(self, task: str, shard: Shard, piece: Piece, retry: Retry | None) -> Iterator[pa.Table]:
        stage_id = retry.stage_id if retry else self.job.stage_id
        blocks = self.blocks(shard, piece, retry.rows if retry else None)
        for k in itertools.count():
            with watched(self.job.hang_seconds):
                block, is_last = next(blocks, (None, True))
            if block is None:
                return
            packed = [pack(BlockName(shard.name, piece, shard.input_id, stage_id, k, k + 1 if is_last else 0), block)]
            del block  # so that it is not held while the next one is made
            self.attempts.reach(task, _piece_name(shard, piece), k + 1)
            yield packed.pop()

    def blocks(self, shard: Shard, piece: Piece, rows: Sequence[int] | None) -> Iterator[tuple[pa.Table, bool]]:
        """Yield decoded blocks of a piece, or of some of its rows, each with whether it is the last."""
        job = self.job
        op = assembly.decoding(job.pipeline, job.settings, shard, decoder=_decoder(), functions=job.functions)
        columns = assembly.decoded_columns(job.pipeline, shard)
        source = job.pipeline.source
        table = read_table(shard, piece, columns, source.storage_options, as_dictionaries=(source.audio,))
        if table.num_rows != piece.num_rows:
            raise ShardError(f"{shard.url}: rows {piece.first} to {piece.end} gave {count(table.num_rows, 'row')}")
        pa.default_memory_pool().release_unused()  # reading one large row temporarily takes three times its bytes
        if rows is not None:
            table = table.take([row - piece.first for row in rows])
        for block, is_last in op(table, piece.first):
            yield (block if rows is None else _renumbered(block, rows, piece.first)), is_last


def _piece_name(shard: Shard, piece: Piece) -> str:
    return f"{shard.name} {piece.first}-{piece.end}"


@functools.cache
def _decoder() -> "Decoder":
    """Return the decoding process of this worker process, shared by all its tasks."""
    from raysp.audio.isolation import Decoder

    decoder = Decoder(on_wait=watchdog.touch)  # its own limits are shorter
    atexit.register(decoder.close)
    return decoder


def close_decoder() -> None:
    """End this process's decoding process; the next use starts a new one."""
    if _decoder.cache_info().currsize:
        decoder = _decoder()
        _decoder.cache_clear()
        atexit.unregister(decoder.close)
        decoder.close()


def _renumbered(block: pa.Table, rows: Sequence[int], first: int) -> pa.Table:
    """Return a block whose row numbers, positions in `rows` plus `first`, are replaced by numbers in the shard."""
    numbers = np.asarray(rows, np.int64)[block.column("row").to_numpy() - first]
    place = block.schema.get_field_index("row")
    return block.set_column(place, block.schema.field(place), pa.array(numbers, pa.int64()))


def load_labelling(job: Job) -> "Labelling":
    """Load the model of the `Label` step."""
    import torch

    torch.set_num_threads(job.settings.cpus_per_actor.number)
    planned = job.metadata["checkpoint_digest"]
    check_digest(job.pipeline.label.checkpoint, checkpoint_folder(job.pipeline), planned)
    return assembly.labelling(job.pipeline, job.settings)


class LabelActor:
    """Actor that holds the model of a `Label` step, labels blocks and stages the results.

    Calls may overlap. The model runs in one separate thread, so that the next block is labelled while a result is
    staged.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        failing.adopt(job.deaths)
        self.store = open_store(job.pipeline.sink.url, job.pipeline.sink.storage_options)
        self.name = f"{os.uname().nodename}:{os.getpid()}"
        self.thread = ThreadPoolExecutor(1)
        self.idle_since: float | None = None
        try:
            self.op = self.thread.submit(self._load).result()
        except Exception as error:
            raise loading.failed(job.attempts, os.uname().nodename, error) from error
        loading.loaded(job.attempts)

    def _load(self) -> "Labelling":
        """Load the model, unless processes of this actor repeatedly crash on it."""
        attempts = self.job.attempts
        load = f"load {attempts.actor_id()}"
        if (deaths := attempts.begin(load)) >= MAX_DEATHS:
            raise RunError(
                f"{self.job.pipeline.label.checkpoint}: {deaths} processes in a row died while they loaded this model, "
                "most likely for want of memory: lower pool.actors, or give each more with pool.memory"
            )
        loaded = load_labelling(self.job)
        attempts.end(load)
        return loaded

    def close(self) -> None:
        """End the model's thread."""
        self.thread.shutdown()

    def __call__(self, packed: pa.Table) -> pa.Table:
        """Label one packed block and return its receipt, which also carries errors: Ray would retry raised ones."""
        found = unpack(packed)
        if isinstance(found, Mapping):
            return receipt_row(found)
        name, block = found
        try:
            labelled = self.thread.submit(self._label, name, block).result()
        except Exception as error:
            logger.exception("%s: a block failed", name.shard)
            if _is_of_the_process(error):
                os._exit(1)  # Ray restarts the actor and retries the block
            return receipt_row(failure(name.shard, f"{type(error).__name__}: {error}"))
        if isinstance(labelled, Mapping):
            return receipt_row(labelled)
        labels, figures, waited = labelled
        try:
            stage.stage(self.store, name, labels)
        except UnusableError as error:  # no space or no permission: no other shard could be written
            return receipt_row({"kind": "fatal", "reason": str(error)})
        except StoreError as error:
            return receipt_row(failure(name.shard, str(error)))
        from raysp.ops.decoding import claimed_seconds

        rate, claimed = self.job.settings.checkpoint.sample_rate, claimed_seconds(block)
        return receipt_row(block_receipt(name, labels, figures, waited, rate, self.name, claimed))

    def _label(self, name: BlockName, block: pa.Table) -> "tuple[pa.Table, Figures, float] | Told":
        started = time.monotonic()
        waited = 0.0 if self.idle_since is None else started - self.idle_since
        attempts, work = self.job.attempts, f"label {name.shard} {name.piece.first}-{name.piece.end} {name.k}"
        if (deaths := attempts.begin(work)) >= MAX_DEATHS:
            attempts.end(work)
            return poison(name.shard, name.piece, deaths)
        with watched(self.job.hang_seconds):
            labels, figures = self.op(block, name.shard)
        attempts.end(work)
        self.idle_since = time.monotonic()
        return labels, figures, waited


def _is_of_the_process(error: Exception) -> bool:
    from raysp.ops.labelling import DeviceLostError

    return isinstance(error, DeviceLostError)


def block_receipt(
    name: BlockName,
    labels: pa.Table,
    figures: "Figures",
    waited: float,
    sample_rate: int,
    actor: str,
    claimed: float = 0.0,
) -> Told:
    """Return the receipt of a staged block, with its error and skipped rows by type and examples of error rows.

    `claimed` is the duration in seconds of the audio in the whole piece, as far as it is known before decoding.
    """
    receipt = BlockReceipt(
        shard=name.shard,
        first=name.piece.first,
        end=name.piece.end,
        k=name.k,
        of=name.of,
        rows=len(labels) - labels.column("windows").null_count,
        windows=figures.windows,
        audio_seconds=sum(s or 0.0 for s in labels.column("seconds").to_pylist()),
        real_samples=round(figures.audio_seconds * sample_rate),
        padded_samples=round(figures.padded_seconds * sample_rate),
        load_seconds=waited,
        forward_seconds=figures.busy_seconds,
        actor=actor,
        finished=time.time(),
        staged_bytes=labels.nbytes,
    )
    errors: dict[str, int] = {}
    long_errors: dict[int, str] = {}
    skipped: dict[str, int] = {}
    examples: list[tuple[int, str, str]] = []
    columns = (labels.column(c).to_pylist() for c in ("row", "status", "error_type", "error_message", "windows"))
    for row, status, error_type, message, windows in zip(*columns, strict=True):
        if status == SKIPPED and windows is not None:  # a row of several windows counts at its last one
            skipped[error_type] = skipped.get(error_type, 0) + 1
        if status != ERROR or row in long_errors:
            continue
        if windows == 1:
            errors[error_type] = errors.get(error_type, 0) + 1
        else:  # other blocks may have failed windows of this row: `Books` counts it once
            long_errors[row] = error_type
        if len(examples) < MAX_EXAMPLES:
            examples.append((row, error_type, message))
    return {
        "kind": "block",
        "receipt": asdict(receipt),
        "claimed": claimed,
        "errors": errors,
        "long_errors": [[row, error_type] for row, error_type in long_errors.items()],
        "skipped": skipped,
        "examples": examples,
    }


def commit_shard(
    job: Job, shard: Shard, retry: Retry | None
) -> ShardReceipt | ShardFailure | ChangedRecordingsError | UnusableError:
    """Write the label shard of a completely staged shard, or replace retried rows of an existing one.

    Returns the error if pieces must be labelled again, or if no shard can be committed.
    """
    failing.adopt(job.deaths)
    store = open_store(job.pipeline.sink.url, job.pipeline.sink.storage_options)
    sink = job.pipeline.sink
    source = job.pipeline.source
    root = sources.open_audio_root(shard, source.audio_root, source.storage_options)
    how = (
        functools.partial(recommit, retry=retry)
        if retry
        else functools.partial(
            commit.commit,
            replace=job.relabel,
            stage_id=job.stage_id,
            is_replaced=lambda: bool(find_replaced(store, job.pipeline, shard).rows),
        )
    )
    try:
        return how(
            store,
            shard,
            fingerprint=job.fingerprint,
            source_columns=lambda piece: read_source_columns(job.pipeline, shard, piece),
            output_schema=job.output_schema,
            rows=sink.rows,
            compression=sink.compression,
            metadata=job.metadata,
            join=lambda windows: assembly.joining(job.pipeline, job.settings)(windows),
            file_id=job.file_id,
            versions=root.versions if root else None,
            texts=text_columns(job.pipeline),
        )
    except UnusableError as error:
        return error
    except ChangedRecordingsError as error:
        return error
    except RayspError as error:
        return ShardFailure(shard.name, str(error))
