"""Reading and decoding of pieces; no torch is loaded."""

import atexit
import functools
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raysp.audio.isolation import Decoder
from raysp.columns import DIGEST
from raysp.corpus import sources
from raysp.corpus.shards import Piece, Shard
from raysp.errors import ShardError
from raysp.labelling import assembly
from raysp.labelling.engine import watchdog
from raysp.labelling.engine.job import Job, PieceTodo
from raysp.labelling.engine.watchdog import watched
from raysp.labelling.planning.carried import read_columns
from raysp.ops.late_steps import CARRIED, RowFilters
from raysp.ops.rows import PLACE, PLACE_TYPE, RowStatus, statuses_table, with_values, with_waves
from raysp.ops.step_ops import fail_unreadable
from raysp.words import count


def read_blocks(job: Job, todo: PieceTodo, decoder: Decoder | None = None) -> Iterator[pa.Table]:
    """Yield the decoded blocks of a piece; the process ends if one takes longer than `job.hang_seconds`.

    Args:
        job: job of the run.
        todo: the piece.
        decoder: None: the decoder of this process.
    """
    blocks = iter([crashed_block(job, todo)]) if todo.has_crashed else _decoded(job, todo, decoder)
    while True:
        with watched(job.hang_seconds):
            block = next(blocks, None)
        if block is None:
            return
        yield block


def _decoded(job: Job, todo: PieceTodo, decoder: Decoder | None) -> Iterator[pa.Table]:
    step = job.passes[todo.number]
    shard, piece, source = todo.shard, todo.piece, job.pipeline.source
    op = assembly.reading(step, shard, decoder or process_decoder(), job.functions)
    columns = todo.columns
    of_labels = {} if columns is None else dict(zip(columns.column_names, columns.columns, strict=True))
    names = [name for name in assembly.decoded_columns(step.pipeline, shard) if name not in of_labels]
    table = read_columns(source, shard, piece, names, (source.audio,))
    if table.num_rows != piece.num_rows:
        num_rows = count(table.num_rows, "row")
        raise ShardError(f"{shard.url}: read {num_rows} from {piece.first} to {piece.end}, expected {piece.num_rows}")
    pa.default_memory_pool().release_unused()  # reading one large row temporarily takes three times its bytes
    rows = todo.rows
    is_whole = len(rows) == piece.num_rows
    if not is_whole:
        table = table.take([row - piece.first for row in rows])
    for name, column in of_labels.items():
        table = table.append_column(name, column)
    for block in op(table, piece.first):
        yield block if is_whole else _renumbered(block, rows, piece.first, job.pipeline.decode.most_channels)


@functools.cache
def process_decoder() -> Decoder:
    """Return the decoding process of this worker process, shared by all its tasks."""
    decoder = Decoder(on_wait=watchdog.touch)  # its own limits are shorter
    atexit.register(decoder.close)
    return decoder


def _renumbered(block: pa.Table, rows: Sequence[int], first: int, most_channels: int) -> pa.Table:
    """Return a block whose row numbers, positions in `rows` plus `first`, are replaced by numbers in the shard."""
    places, channels = np.divmod(block.column("row").to_numpy(), most_channels)
    numbers = np.asarray(rows, np.int64)[places - first] * most_channels + channels
    place = block.schema.get_field_index("row")
    return block.set_column(place, block.schema.field(place), pa.array(numbers, pa.int64()))


def read_source(job: Job, shard: Shard, piece: Piece) -> pa.Table:
    """Read all columns of a piece but the audio, with null in place of values that cannot be read."""
    source = job.pipeline.source
    names = sorted({*sources.column_names(shard, source.storage_options)} - {source.audio})
    table = read_columns(source, shard, piece, names)
    texts = () if source.text is None else (source.text,)
    return fail_unreadable(table, [RowStatus(row) for row in range(piece.first, piece.end)], texts)


def filtering(job: Job, shard: Shard, filters: RowFilters) -> Callable[[pa.Table, Piece], pa.Table]:
    """Return a function that filters label rows of a piece, whose source it reads once if a filter needs it."""
    source_of = functools.lru_cache(1)(functools.partial(read_source, job, shard))

    def filtered(rows: pa.Table, piece: Piece) -> pa.Table:
        source = None
        if filters.reads_source:
            source = source_of(piece).take(pc.subtract(rows.column("row"), pa.scalar(piece.first)))
        with watched(job.hang_seconds):
            return filters(rows, source)

    return filtered


def crashed_block(job: Job, todo: PieceTodo) -> pa.Table:
    """Return a block of the rows of a piece as error rows, with the columns that other blocks carry, without values."""
    statuses = [RowStatus(row * job.pipeline.decode.most_channels) for row in todo.rows]
    for status in statuses:
        status.fail("worker_crashed", "several workers that labelled this row alone crashed")
    nulls = [None] * len(statuses)
    block = with_waves(statuses_table(statuses), nulls)
    label, source = job.pipeline.label, job.pipeline.source
    if label.windows == "speech":
        block = with_values(block, PLACE, nulls, PLACE_TYPE)
    if label.reads:
        read = read_columns(source, todo.shard, todo.piece, [*label.reads])
        for name in label.reads:
            block = block.append_column(f"{CARRIED}{name}", read.column(name).take(pa.nulls(len(nulls), pa.int64())))
    if DIGEST in label.carried:
        block = block.append_column(f"{CARRIED}{DIGEST}", pa.nulls(len(nulls), pa.string()))
    return block
