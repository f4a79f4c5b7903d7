"""Labelling of tables in one process: rows are decoded, their windows labelled and joined."""

import threading
import weakref
from collections import deque
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pyarrow as pa

from raysp.audio.isolation import Decoder
from raysp.columns import RESULT_COLUMNS
from raysp.errors import RunError
from raysp.labelling import assembly
from raysp.labelling.engine import calls_in_order
from raysp.labelling.engine.datasets.table_job import PLACE, TableJob
from raysp.labelling.engine.model import Model
from raysp.labelling.joined_rows import join_windows
from raysp.sink.sorting import in_order
from raysp.words import count


class TableLabelling:
    """Callable that labels rows, which holds the model and the decoding processes.

    Calls may overlap: each has a decoding process of its own, so that a model on an accelerator goes from the last
    block of one table to the first block of the next one without a gap.

    Args:
        job: steps and columns.
        digest: digest of the planned checkpoint; None: not compared.
        threads: torch threads of the model on CPUs, shared by batches that are labelled at once.
    """

    def __init__(self, job: TableJob, *, digest: str | None = None, threads: int) -> None:
        self.job = job
        self.model = Model(job, digest=digest, threads=threads, in_this_thread=True)
        self._join = assembly.joining(job.pipeline, job.settings)
        self._filter = assembly.row_filters(job.pipeline, job.functions)
        self._joining = threading.Lock()
        self._decoders = deque[Decoder]()
        weakref.finalize(self, _close, self._decoders)

    def __call__(self, rows: pa.Table) -> pa.Table:
        """Return the label rows of rows, in order. The next block is decoded while the model labels one.

        Raises:
            PlanError: a column is missing, or has another type than expected.
        """
        rows = self.job.with_audio(rows)
        self.job.check(rows.schema)
        source = self.job.pipeline.source
        names = None if source.id is None else rows.column(source.id).to_pylist()
        with (
            self._decoder() as decoder,
            closing(calls_in_order.ahead(self._decoded(rows, decoder), 1)) as blocks,
        ):
            labelled = calls_in_order.in_order(
                lambda block: self.model(block, names=names).labels, blocks, self.model.at_once
            )
            windows = pa.concat_tables(labelled)
        columns = [*RESULT_COLUMNS, *self.job.pipeline.columns]
        with self._joining:
            joined = in_order([join_windows(windows, self._join)]).select(columns)
            joined = self._filter(joined, rows.drop_columns([source.audio]) if self._filter.reads_source else None)
        if joined.num_rows != rows.num_rows:
            raise RunError(
                f"{PLACE}: {count(rows.num_rows, 'row')} became {count(joined.num_rows, 'row')}; this is a bug in "
                "raysp: report it"
            )
        return self.job.label_rows(rows, joined)

    def close(self) -> None:
        """End the decoding processes. A later call starts a new one."""
        _close(self._decoders)

    def _decoded(self, rows: pa.Table, decoder: Decoder) -> Iterator[pa.Table]:
        """Return an iterator over the decoded blocks of rows, which are numbered from 0."""
        job = self.job
        decode = assembly.decoding(job.pipeline, job.settings, None, decoder=decoder, functions=job.functions)
        return decode(rows.select(job.decoded_columns(rows.schema)), 0)

    @contextmanager
    def _decoder(self) -> Iterator[Decoder]:
        """Yield a decoding process that no other call uses."""
        try:
            decoder = self._decoders.pop()
        except IndexError:
            decoder = Decoder()
        try:
            yield decoder
        finally:
            self._decoders.append(decoder)


def _close(decoders: deque[Decoder]) -> None:
    while decoders:
        decoders.pop().close()
