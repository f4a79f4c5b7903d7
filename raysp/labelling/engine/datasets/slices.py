"""Slices of a dataset between decoding tasks and model actors: neighbouring rows, decoded unless they are very long."""

from collections.abc import Iterator
from typing import NamedTuple

import pyarrow as pa

from raysp.labelling.engine.datasets.table_job import TableJob
from raysp.labelling.engine.datasets.table_labelling import TableLabelling, decoding
from raysp.labelling.engine.job import sleep_while_waiting
from raysp.labelling.engine.piece_reading import process_decoder
from raysp.ops.blocks import BLOCK_BYTES
from raysp.ops.decoding import SAMPLE_BYTES, Slice

BLOCKS_A_SLICE = 4
"""Work of a slice: more rows than those of a block, so that batches of like length are full."""
SLICE_ROWS = 1000
SLICE_BYTES = 2 * BLOCK_BYTES
"""Largest number of bytes of samples in a slice, by the headers. The model's actor decodes longer rows itself."""
MOST_BYTES = 2 * SLICE_BYTES
"""Largest number of bytes of decoded samples, if headers claim too little."""


class Packed(NamedTuple):
    """A slice in one row, so that Ray Data never splits it."""

    rows: pa.Table
    """Columns that the result takes from the rows; if the slice is not decoded, also those that decoding reads."""
    blocks: list[pa.Table] | None
    """Decoded blocks; None: not decoded."""

    def to_table(self) -> pa.Table:
        """Return a table of one row."""
        data = _to_ipc([self.rows, *(self.blocks or [])])
        offsets = pa.py_buffer(b"".join(n.to_bytes(8, "little") for n in (0, data.size)))
        column = pa.Array.from_buffers(pa.large_binary(), 1, [None, offsets, data])
        return pa.table({"slice": column, "is_decoded": [self.blocks is not None]})

    @classmethod
    def from_table(cls, table: pa.Table) -> "Packed":
        """Return the slice of a table of one row, without copying its samples."""
        data = table.column("slice")[0].as_buffer()
        rows, *blocks = _tables(data)
        return cls(rows, blocks if table.column("is_decoded")[0].as_py() else None)


def decode(job: TableJob, rows: pa.Table) -> Iterator[pa.Table]:
    """Yield the slices of a batch of rows, packed. Runs in tasks, which load no torch.

    Raises:
        PlanError: a column is missing, or has another type than expected.
    """
    if rows.num_rows == 0:
        return
    rows = job.with_audio(rows)
    job.check(rows.schema)
    read = rows.select(job.decoded_columns(rows.schema))
    rate = job.settings.checkpoint.sample_rate
    longest = SLICE_BYTES / SAMPLE_BYTES / rate
    op = decoding(job, process_decoder())
    for one in op.slices(
        read, most_seconds=min(longest, BLOCKS_A_SLICE * job.settings.block_seconds), most_rows=SLICE_ROWS
    ):
        blocks = _decoded(one) if one.seconds <= longest else None
        needed = job.columns if blocks is not None else dict.fromkeys([*job.columns, *read.column_names])
        yield Packed(rows.select([*needed]).slice(one.first, one.end - one.first), blocks).to_table()


def _decoded(one: Slice) -> list[pa.Table] | None:
    """Return the blocks of a slice; None if they are much longer than the headers claim."""
    blocks: list[pa.Table] = []
    num_bytes = 0
    for block in one.blocks:
        blocks.append(block)
        num_bytes += block.nbytes
        if num_bytes > MOST_BYTES:
            return None
    return blocks


class SliceLabeller:
    """Actor that holds the model and labels slices.

    Args:
        job: steps and columns.
        digest: digest of the planned checkpoint.

    Raises:
        CheckpointError: the checkpoint is missing, or not the planned one.
    """

    def __init__(self, job: TableJob, digest: str) -> None:
        # Before torch, which reads the variable when it is imported.
        sleep_while_waiting()
        import torch

        threads = job.settings.cpus_per_actor.number
        torch.set_num_threads(threads)
        self.labelling = TableLabelling(job, process_decoder(), digest=digest, threads=threads)

    def __call__(self, table: pa.Table) -> pa.Table:
        """Return the label rows of a packed slice."""
        packed = Packed.from_table(table)
        if packed.blocks is None:
            return self.labelling(packed.rows)
        return self.labelling.label(packed.rows, packed.blocks)


def _to_ipc(tables: list[pa.Table]) -> pa.Buffer:
    """Return tables as consecutive streams in a buffer of their exact size: a growing one takes twice the memory."""
    measured = pa.MockOutputStream()
    _write(measured, tables)
    data = pa.allocate_buffer(measured.size())
    with pa.FixedSizeBufferWriter(data) as sink:
        _write(sink, tables)
    return data


def _write(sink: pa.NativeFile, tables: list[pa.Table]) -> None:
    for table in tables:
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)


def _tables(data: pa.Buffer) -> Iterator[pa.Table]:
    source = pa.BufferReader(data)
    while source.tell() < data.size:
        with pa.ipc.open_stream(source) as reader:
            yield reader.read_all()
