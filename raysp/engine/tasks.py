"""What runs on workers: thin shells around ops and sink, which do the work and know nothing of Ray."""

import atexit
import functools
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import pyarrow as pa

from raysp.audio.windows import Windowing
from raysp.errors import RayspError, ShardError, StoreError
from raysp.io import sources
from raysp.io.audio_root import AudioRoot
from raysp.io.shards import Piece, Shard
from raysp.io.sources import read_table
from raysp.io.store import open_store
from raysp.ops.rows import ERROR
from raysp.pipeline import Pipeline, load_function
from raysp.planning import Retry, check_digest, checkpoint_folder
from raysp.sink import commit, failing, stage
from raysp.sink.layout import BlockName
from raysp.sink.receipts import BlockReceipt, ShardFailure, ShardReceipt
from raysp.sink.retrying import recommit
from raysp.sink.source_columns import read_source_columns
from raysp.steps import Decode, Keep

if TYPE_CHECKING:
    from raysp.audio.isolation import Decoder
    from raysp.ops.decoding import Decoding
    from raysp.ops.keeping import Keeping
    from raysp.ops.labelling import Figures, Labelling

logger = logging.getLogger(__name__)

MAX_EXAMPLES = 3


@dataclass(frozen=True)
class Job:
    """All that a worker must know; the same for every task of a run."""

    pipeline: Pipeline
    fingerprint: str
    windowing: Windowing
    block_seconds: float
    batch_seconds: float
    dtype: str
    device: str
    output_schema: pa.Schema
    metadata: Mapping[str, str]
    file_id: str
    relabel: bool
    deaths: Mapping[str, str]
    """What `sink.failing` must know, in tests."""
    functions: Mapping[str, Callable[..., object]]
    """Functions that the pipeline names, by that name: shipped, so that workers need not find their module."""


def load_functions(pipeline: Pipeline) -> dict[str, Callable[..., object]]:
    """Import the functions that a pipeline names, and have their modules travel by value."""
    names = [step.where for step in pipeline.steps if isinstance(step, Keep) and isinstance(step.where, str)]
    if not names:
        return {}
    import sys

    from ray import cloudpickle

    found = {name: cast("Callable[..., object]", load_function(name)) for name in names}
    for function in found.values():
        cloudpickle.register_pickle_by_value(sys.modules[function.__module__])  # type: ignore[no-untyped-call]
    return found


def piece_item(shard: Shard, piece: Piece, retry: Retry | None = None) -> str:
    """Write down a piece for `Reader`, or those of its rows that are retried."""
    part = {"retry": {"stage_id": retry.stage_id, "rows": retry.of(piece)}} if retry else {}
    return json.dumps({**asdict(shard), "pieces": [[piece.first, piece.end]], **part})


def _read_item(text: str) -> tuple[Shard, Piece, Retry | None]:
    fields = json.loads(text)
    piece = Piece(*fields.pop("pieces")[0])
    retry = fields.pop("retry", None)
    return Shard(**fields, pieces=(piece,)), piece, Retry(**retry) if retry else None


class Reader:
    """Read and decode pieces, one packed block after the other."""

    def __init__(self, job: Job) -> None:
        self.job = job

    def __call__(self, items: pa.Table) -> Iterator[pa.Table]:
        """Yield the blocks of the pieces named in column `piece`."""
        for text in items.column("piece")[0].as_py().split("\n"):
            shard, piece, retry = _read_item(text)
            try:
                yield from self._blocks(shard, piece, retry)
            except RayspError as error:
                yield pack(ShardFailure(shard.name, str(error)), None)
            except Exception as error:
                yield pack(ShardFailure(shard.name, f"{type(error).__name__}: {error}"), None)

    def _blocks(self, shard: Shard, piece: Piece, retry: Retry | None) -> Iterator[pa.Table]:
        op, columns = self._decoding(shard)
        table = read_table(shard, piece, columns, self.job.pipeline.source.storage_options)
        if table.num_rows != piece.num_rows:
            raise ShardError(f"{shard.url}: rows {piece.first} to {piece.end} gave {table.num_rows} rows")
        pa.default_memory_pool().release_unused()  # reading one large row takes three times its bytes, for a moment
        if retry:
            table = table.take([row - piece.first for row in retry.rows])
        stage_id = retry.stage_id if retry else self.job.fingerprint
        for k, (block, is_last) in enumerate(op(table, piece.first)):
            if retry:
                block = _renumbered(block, retry.rows, piece.first)
            of = k + 1 if is_last else 0
            packed = [pack(BlockName(shard.name, piece, shard.input_id, stage_id, k, of), block)]
            del block  # or it would be held while the next one is made
            yield packed.pop()

    def _decoding(self, shard: Shard) -> tuple["Decoding", list[str]]:
        from raysp.ops.decoding import Decoding
        from raysp.ops.recordings import DURATION, OFFSET

        source, decode = self.job.pipeline.source, self.job.pipeline.decode
        before: list[Keeping] = []
        after: list[Keeping] = []
        is_manifest = shard.kind == sources.MANIFEST
        columns = {source.audio, *((OFFSET, DURATION) if is_manifest else ())}
        seen_decode = False
        for step in self.job.pipeline.steps:
            seen_decode = seen_decode or isinstance(step, Decode)
            if isinstance(step, Keep):
                (after if seen_decode else before).append(self._keeping(step))
                columns |= self._reads(step, shard)
        op = Decoding(
            audio=source.audio,
            windowing=self.job.windowing,
            channel=decode.channel,
            max_seconds=decode.max_seconds,
            block_seconds=self.job.block_seconds,
            before=before,
            after=after,
            decoder=_decoder(),
            root=self._audio_root(shard),
            is_manifest=is_manifest,
        )
        return op, sorted(columns)

    def _audio_root(self, shard: Shard) -> AudioRoot | None:
        source = self.job.pipeline.source
        root = sources.audio_root(shard, source.audio_root)
        return None if root is None else AudioRoot(root, source.storage_options)

    def _keeping(self, step: Keep) -> "Keeping":
        from raysp.ops.keeping import Keeping

        where = self.job.functions[step.where] if isinstance(step.where, str) else step.where
        return Keeping(where=where, min_seconds=step.min_seconds, max_seconds=step.max_seconds)  # type: ignore[arg-type]

    def _reads(self, step: Keep, shard: Shard) -> set[str]:
        if isinstance(step.where, str):
            return set(sources.column_names(shard, self.job.pipeline.source.storage_options))
        return set(step.reads)


@functools.cache
def _decoder() -> "Decoder":
    """Keep one decoding process for each worker process, whatever tasks it is given."""
    from raysp.audio.isolation import Decoder

    decoder = Decoder()
    atexit.register(decoder.close)
    return decoder


def _renumbered(block: pa.Table, rows: Sequence[int], first: int) -> pa.Table:
    """Give the rows of a block, counted among `rows` from `first`, the numbers that they have in the shard."""
    numbers = np.asarray(rows, np.int64)[block.column("row").to_numpy() - first]
    place = block.schema.get_field_index("row")
    return block.set_column(place, block.schema.field(place), pa.array(numbers, pa.int64()))


class LabelActor:
    """Hold the model of a `Label` step: label blocks and stage their results.

    Calls may overlap. The model runs in one thread of its own, so that while one result is written behind, the next
    block is already being labelled.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        failing.adopt(job.deaths)
        self.store = open_store(job.pipeline.sink.url, job.pipeline.sink.storage_options)
        self.name = f"{os.uname().nodename}:{os.getpid()}"
        self.thread = ThreadPoolExecutor(1)
        self.idle_since: float | None = None
        self.op = self.thread.submit(self._load).result()

    def _load(self) -> "Labelling":
        import torch

        from raysp.ops.labelling import Labelling

        label = self.job.pipeline.label
        torch.set_num_threads(label.pool.cpus)
        folder = checkpoint_folder(self.job.pipeline)
        check_digest(label.checkpoint, folder, self.job.metadata["checkpoint_digest"])
        return Labelling(
            str(folder),
            lambda loaded: [output.op(loaded) for output in label.outputs],
            batch_seconds=self.job.batch_seconds,
            dtype=self.job.dtype,
            device=self.job.device,
            exact=label.exact,
            window_seconds=label.window_seconds,
            overlap_seconds=label.overlap_seconds,
        )

    def __call__(self, packed: pa.Table) -> pa.Table:
        """Label one packed block and give its receipt; what goes wrong is told in it, for Ray would only repeat it."""
        name, block = unpack(packed)
        if isinstance(name, ShardFailure) or block is None:
            return _failure(cast("ShardFailure", name))
        try:
            labels, figures, waited = self.thread.submit(self._label, block).result()
        except Exception as error:
            logger.exception("%s: a block failed", name.shard)
            return _failure(ShardFailure(name.shard, f"{type(error).__name__}: {error}"))
        try:
            stage.stage(self.store, name, labels)
        except StoreError as error:
            return _receipt_row({"kind": "fatal", "reason": str(error)})
        return _receipt_row({"kind": "block", **self._receipt(name, labels, figures, waited)})

    def _label(self, block: pa.Table) -> tuple[pa.Table, "Figures", float]:
        started = time.monotonic()
        waited = 0.0 if self.idle_since is None else started - self.idle_since
        labels, figures = self.op(block)
        self.idle_since = time.monotonic()
        return labels, figures, waited

    def _receipt(self, name: BlockName, labels: pa.Table, figures: "Figures", waited: float) -> dict[str, object]:
        receipt = BlockReceipt(
            shard=name.shard,
            first=name.piece.first,
            end=name.piece.end,
            k=name.k,
            of=name.of,
            rows=len(labels) - labels.column("windows").null_count,
            windows=figures.windows,
            audio_seconds=sum(s or 0.0 for s in labels.column("seconds").to_pylist()),
            real_samples=round(figures.audio_seconds * self.job.windowing.sample_rate),
            padded_samples=round(figures.padded_seconds * self.job.windowing.sample_rate),
            load_seconds=waited,
            forward_seconds=figures.busy_seconds,
            actor=self.name,
            finished=time.time(),
        )
        errors: dict[str, int] = {}
        long_errors: dict[int, str] = {}
        examples: list[str] = []
        columns = (labels.column(c).to_pylist() for c in ("row", "status", "error_type", "error_message", "windows"))
        for row, status, error_type, message, windows in zip(*columns, strict=True):
            if status != ERROR or row in long_errors:
                continue
            if windows == 1:
                errors[error_type] = errors.get(error_type, 0) + 1
            else:  # more windows of it may fail in other blocks: who collects the receipts counts it once
                long_errors[row] = error_type
            if len(examples) < MAX_EXAMPLES:
                examples.append(f"{name.shard} row {row}: {error_type}: {message}")
        return {
            "receipt": asdict(receipt),
            "errors": errors,
            "long_errors": [[row, error_type] for row, error_type in long_errors.items()],
            "examples": examples,
        }


def commit_shard(job: Job, shard: Shard, retry: Retry | None) -> ShardReceipt | ShardFailure:
    """Make a label shard of a shard whose pieces are all staged, or put retried rows into the one that is there."""
    failing.adopt(job.deaths)
    store = open_store(job.pipeline.sink.url, job.pipeline.sink.storage_options)
    sink = job.pipeline.sink
    how = functools.partial(recommit, retry=retry) if retry else functools.partial(commit.commit, replace=job.relabel)
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
            join=lambda windows: _join(job, windows),
            file_id=job.file_id,
        )
    except RayspError as error:
        return ShardFailure(shard.name, str(error))


def _join(job: Job, windows: pa.Table) -> pa.Table:
    from raysp.ops.joining import Joining

    windowing, folder = job.windowing, str(checkpoint_folder(job.pipeline))
    outputs = [output.join_op(folder, windowing.frame_seconds) for output in job.pipeline.label.outputs]
    return Joining(outputs, windowing.sample_rate)(windows)


def pack(name: BlockName | ShardFailure, block: pa.Table | None) -> pa.Table:
    """Put a block into one row, so that Ray Data hands it on whole and never looks inside."""
    kind = "failure" if isinstance(name, ShardFailure) else "block"
    data = pa.py_buffer(b"") if block is None else _to_ipc(block)
    offsets = pa.py_buffer(b"".join(n.to_bytes(8, "little") for n in (0, data.size)))
    column = pa.Array.from_buffers(pa.large_binary(), 1, [None, offsets, data])
    return pa.table({"name": pa.array([json.dumps({"kind": kind, **asdict(name)})]), "block": column})


def _to_ipc(block: pa.Table) -> pa.Buffer:
    """Write a table into memory of just its size: what grows takes twice as much."""
    measured = pa.MockOutputStream()
    with pa.ipc.new_stream(measured, block.schema) as writer:
        writer.write_table(block)
    data = pa.allocate_buffer(measured.size())
    with pa.FixedSizeBufferWriter(data) as sink, pa.ipc.new_stream(sink, block.schema) as writer:
        writer.write_table(block)
    return data


def unpack(packed: pa.Table) -> tuple[BlockName | ShardFailure, pa.Table | None]:
    """Take a block out again without copying its samples."""
    fields = json.loads(packed.column("name")[0].as_py())
    if fields.pop("kind") == "failure":
        return ShardFailure(**fields), None
    fields["piece"] = Piece(**fields["piece"])
    return BlockName(**fields), pa.ipc.open_stream(packed.column("block")[0].as_buffer()).read_all()


def _failure(failure: ShardFailure) -> pa.Table:
    return _receipt_row({"kind": "failure", **asdict(failure)})


def _receipt_row(receipt: Mapping[str, object]) -> pa.Table:
    return pa.table({"receipt": [json.dumps(receipt)]})
