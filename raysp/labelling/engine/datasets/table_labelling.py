"""Labelling of tables in one process: rows are decoded, their windows labelled and joined."""

import threading
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import zip_longest

import pyarrow as pa
import pyarrow.compute as pc

from raysp.audio.isolation import Decoder
from raysp.columns import OK, RESULT_COLUMNS
from raysp.errors import RunError
from raysp.labelling import assembly
from raysp.labelling.engine import calls_in_order
from raysp.labelling.engine.datasets.table_job import PLACE, TableJob
from raysp.labelling.engine.later_passes import merged
from raysp.labelling.engine.model import Model
from raysp.labelling.planning.run_plan import output_schema
from raysp.sink.sorting import in_order
from raysp.words import count


class TableLabelling:
    """Callable that labels rows, which holds the model and the decoding processes.

    Calls may overlap: each has a decoding process of its own, so that a model on an accelerator goes from the last
    block of one table to the first block of the next one without a gap.

    Args:
        job: steps and columns.
        digests: digests of the planned checkpoints; none: not compared.
        threads: torch threads of the models on CPUs, shared by batches that are labelled at once.
    """

    def __init__(self, job: TableJob, *, digests: Sequence[str] = (), threads: int) -> None:
        self.job = job
        self.models = [
            Model(one, digest=digest, threads=threads, in_this_thread=True)
            for one, digest in zip_longest(job.passes, digests)
        ]
        self._joins = [assembly.joining(*one) for one in job.passes]
        steps = (*job.pipeline.filters_between, job.pipeline.filters)
        self._filters = [assembly.row_filters(job.pipeline, job.functions, one) for one in steps]
        self._joining = threading.Lock()
        self._decoders = deque[Decoder]()
        weakref.finalize(self, _close, self._decoders)

    def __call__(self, rows: pa.Table) -> pa.Table:
        """Return the label rows of rows, in order. The next block is decoded while a model labels one.

        Raises:
            PlanError: a column is missing, or has another type than expected.
        """
        rows = self.job.with_audio(rows)
        self.job.check(rows.schema)
        audio = self.job.pipeline.source.audio
        source = rows.drop_columns([audio]) if any(one.reads_source for one in self._filters) else None
        with self._decoder() as decoder:
            labels = self._filters[0](self._passed(0, rows, decoder), source)
            for number, one in enumerate(self.job.passes[1:], 1):
                is_ok = pc.equal(labels.column("status"), pa.scalar(OK))
                wanted, before = rows.filter(is_ok), labels.filter(is_ok)
                for name in one.pipeline.label.reads:
                    if name in before.column_names:
                        wanted = wanted.append_column(name, before.column(name))
                of_pass = []
                if wanted.num_rows:
                    of_pass.append(self._passed(number, wanted, decoder).set_column(0, "row", before.column("row")))
                [labels] = merged(iter([labels]), iter(of_pass), output_schema(one))
                labels = self._filters[number](labels, source)
        labels = labels.select([*RESULT_COLUMNS, *self.job.pipeline.columns])
        if labels.num_rows != rows.num_rows:
            raise RunError(
                f"{PLACE}: {count(rows.num_rows, 'row')} became {count(labels.num_rows, 'row')}; this is a bug in "
                "raysp: report it"
            )
        return self.job.label_rows(rows, labels)

    def _passed(self, number: int, rows: pa.Table, decoder: Decoder) -> pa.Table:
        """Return the label rows of one pass, numbered from 0."""
        one, model, source = self.job.passes[number], self.models[number], self.job.pipeline.source
        ids = None if source.id is None else rows.column(source.id).to_pylist()
        names = ids and [name for name in ids for _ in range(one.pipeline.decode.most_channels)]
        decode = assembly.decoding(*one, None, decoder=decoder, functions=self.job.functions)
        with closing(calls_in_order.ahead(decode(rows.select(self._read(number, rows)), 0), 1)) as blocks:
            labelled = calls_in_order.in_order(lambda block: model(block, names=names).labels, blocks, model.at_once)
            windows = in_order([*labelled])
        with self._joining:
            return self._joins[number](windows)

    def _read(self, number: int, rows: pa.Table) -> list[str]:
        """Return the columns that decoding reads for a pass."""
        pipeline = self.job.passes[number].pipeline
        return sorted({pipeline.source.audio, *pipeline.reads}) if number else self.job.decoded_columns(rows.schema)

    def close(self) -> None:
        """End the decoding processes. A later call starts a new one."""
        _close(self._decoders)

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
