"""Labelling of tables in one process: rows are decoded, their windows labelled and joined."""

import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

import pyarrow as pa

from raysp.columns import RESULT_COLUMNS
from raysp.errors import RunError
from raysp.labelling import assembly
from raysp.labelling.engine.calls_in_order import in_order as calls_in_order
from raysp.labelling.engine.datasets.table_job import PLACE, TableJob
from raysp.labelling.joined_rows import join_windows
from raysp.sink.sorting import in_order
from raysp.words import count

if TYPE_CHECKING:
    from raysp.ops.decoding import Decoder, Decoding

T = TypeVar("T")


class TableLabelling:
    """Callable that labels rows, which holds the model.

    On an accelerator several blocks are in its hand, of one call and of the next ones (`blocks_in_hand` of the op), so
    that it goes from block to block without a gap. Calls may overlap.

    Args:
        job: steps and columns.
        decoder: decoding functions; None: those of this process.
        digest: digest of the planned checkpoint; None: not compared.
        threads: torch threads of the model on CPUs, shared by batches that are labelled at once.
    """

    def __init__(
        self, job: TableJob, decoder: "Decoder | None" = None, *, digest: str | None = None, threads: int
    ) -> None:
        self.job = job
        self.decoder = decoder
        assembly.refuse_other_card(job.settings)
        self.op = assembly.labelling(
            job.pipeline, job.settings, digest=digest, threads=threads, functions=job.functions
        )
        self.join = assembly.joining(job.pipeline, job.settings, job.functions)
        self._in_hand = threading.Semaphore(self.op.blocks_in_hand)
        self._decoding, self._joining = threading.Lock(), threading.Lock()

    def __call__(self, rows: pa.Table) -> pa.Table:
        """Return the label rows of rows, in order. The next block is decoded while the model labels one."""
        with self._decoding:  # by one process
            decoded = decoding(self.job, self.decoder)(rows.select(self.job.decoded_columns(rows.schema)), 0)
            return self.label(rows, _ahead(block for block, _ in decoded))

    def label(self, rows: pa.Table, blocks: Iterable[pa.Table]) -> pa.Table:
        """Return the label rows of rows, in order.

        Args:
            rows: the columns that the result takes from the rows.
            blocks: their decoded blocks, in which rows are numbered from 0.
        """
        source = self.job.pipeline.source
        names = None if source.id is None else rows.column(source.id).to_pylist()
        windows = pa.concat_tables(self._labelled(blocks, names))
        columns = [*RESULT_COLUMNS, *self.job.pipeline.columns]
        with self._joining:
            labelled = in_order([join_windows(windows, self.join)]).select(columns)
        if labelled.num_rows != rows.num_rows:
            raise RunError(
                f"{PLACE}: {count(rows.num_rows, 'row')} became {count(labelled.num_rows, 'row')}; this is a bug in "
                "raysp: report it"
            )
        return self.job.label_rows(rows, labelled)

    def _labelled(self, blocks: Iterable[pa.Table], names: Sequence[object] | None) -> Iterator[pa.Table]:
        """Yield the windows of blocks in order; the next ones are begun meanwhile, if the op takes several."""
        if self.op.blocks_in_hand == 1:  # in this thread, whose torch threads the model has
            yield from (self._block(block, names) for block in blocks)
            return
        yield from calls_in_order(lambda block: self._block(block, names), blocks, 1 + self.op.blocks_in_hand)

    def _block(self, block: pa.Table, names: Sequence[object] | None) -> pa.Table:
        """Return the windows of a block. Code from outside raysp runs for one block at a time."""
        given = self.op.prepare(block, names=names)
        with self._in_hand:
            self.op.run(given)
            table = self.op.table(given) if self.op.has_users_code else None
        # Outside of the semaphore: the model goes on to the next block meanwhile.
        return self.op.table(given) if table is None else table


def decoding(job: TableJob, decoder: "Decoder | None") -> "Decoding":
    """Return the op that decodes and filters rows, and adds columns to them."""
    return assembly.decoding(job.pipeline, job.settings, None, decoder=decoder, functions=job.functions)


def _ahead(items: Iterator[T]) -> Iterator[T]:
    """Yield items; the next one is computed by a thread meanwhile."""
    end = object()
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(next, items, end)
        while (item := waiting.result()) is not end:
            waiting = thread.submit(next, items, end)
            yield item  # type: ignore[misc]
