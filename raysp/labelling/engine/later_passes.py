"""Passes of the `Label` steps after the first, over the rows that are ok, with outputs of earlier passes.

Recordings of one window are kept from the first pass in a scratch file, so that they are decoded once. Others are
decoded again, in the windows of the next model.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from raysp.columns import DIGEST, OK, RECORDING_COLUMNS, RESULT_COLUMNS, WAVE
from raysp.labelling.engine.job import Job, PieceTodo
from raysp.labelling.planning.carried import read_columns
from raysp.labelling.planning.run_plan import Pass
from raysp.labelling.planning.settings import windowing
from raysp.ops.late_steps import CARRIED
from raysp.ops.rows import ROW_SCHEMA, waves_of
from raysp.sink.commit import RESULT_SCHEMA
from raysp.sink.label_rows import Cursor
from raysp.specs.steps import EACH

Rows = npt.NDArray[np.int64]


class KeptBlocks:
    """Recordings of one window each, as the first pass decoded them.

    Args:
        passes: all passes.
        lend: returns the path of a scratch file.
    """

    def __init__(self, passes: Sequence[Pass], lend: Callable[[], Path]) -> None:
        self._passes = passes
        self._path = functools.cache(lend)
        self._offsets: list[int] = []

    def add(self, block: pa.Table) -> pa.Table:
        """Keep the rows of a decoded block that are one window, if a later pass takes them, and return the block."""
        if self._most_samples == 0:
            return block
        kept = block.select([*ROW_SCHEMA.names, WAVE]).filter((pc.field("status") == OK) & (pc.field("windows") == 1))
        kept = kept.filter(pa.array(_num_samples(kept) <= self._most_samples)).combine_chunks()
        if not kept.num_rows:
            return block
        with pa.OSFile(str(self._path()), "ab") as file:
            self._offsets.append(file.tell())
            with pa.ipc.new_stream(file, kept.schema) as writer:
                writer.write_table(kept)
        return block

    def of(self, later: Pass, rows: Rows, columns: pa.Table) -> Iterator[pa.Table]:
        """Yield the blocks of those rows of a later pass that are kept.

        Args:
            later: the pass.
            rows: rows of the pass, in order.
            columns: the columns that the outputs of the pass read, for each of these rows.
        """
        most_samples = _window_samples(self._passes[0], later)
        for offset in self._offsets:
            with pa.OSFile(str(self._path()), "rb") as file:
                file.seek(offset)
                block = pa.ipc.open_stream(file).read_all()
            is_used = np.isin(block.column("row").to_numpy(), rows) & (_num_samples(block) <= most_samples)
            if not is_used.any():
                continue
            used = block.filter(pa.array(is_used)).combine_chunks()
            places = pa.array(np.searchsorted(rows, used.column("row").to_numpy()), pa.int64())
            for name in columns.column_names:
                used = used.append_column(f"{CARRIED}{name}", columns.column(name).take(places))
            yield used

    @functools.cached_property
    def _most_samples(self) -> int:
        """Samples of the longest recording that a later pass takes as one window; 0: no pass does."""
        first, *later = self._passes
        return max((_window_samples(first, step) for step in later), default=0)


def _num_samples(block: pa.Table) -> Rows:
    return np.array([0 if wave is None else len(wave) for wave in waves_of(block)], np.int64)


def _window_samples(first: Pass, later: Pass) -> int:
    """Return the samples of the longest recording that is one window of both passes; 0: they decode otherwise."""
    both = first, later
    if len({step.settings.checkpoint.sample_rate for step in both}) > 1 or first.pipeline.decode.channel == EACH:
        return 0
    if any(step.pipeline.label.windows != "even" for step in both) or DIGEST in later.pipeline.label.carried:
        return 0
    return min(windowing(step.settings.checkpoint, step.pipeline.label).window_samples for step in both)


def rows_of_pass(job: Job, number: int, todo: PieceTodo, before: Iterator[pa.Table]) -> tuple[Rows, pa.Table]:
    """Return the rows that go through a later model, and the columns that its outputs read.

    Args:
        job: job of the run.
        number: number of the pass, from 1.
        todo: the piece.
        before: its label rows so far, in order.
    """
    label, source = job.passes[number].pipeline.label, job.pipeline.source
    numbers, tables = list[Rows](), list[pa.Table]()
    for table in before:
        ok = table.filter(pc.equal(table.column("status"), pa.scalar(OK)))
        numbers.append(ok.column("row").to_numpy())
        tables.append(ok.select([name for name in label.reads if name in ok.column_names]))
    rows, of_labels = np.concatenate(numbers), pa.concat_tables(tables)
    columns = {name: of_labels.column(name) for name in of_labels.column_names}
    if of_source := [name for name in label.reads if name not in columns]:
        places = pa.array(rows - todo.piece.first, pa.int64())
        read = read_columns(source, todo.shard, todo.piece, of_source).take(places)
        columns |= {name: read.column(name) for name in of_source}
    return rows, pa.table(columns)


def merged(before: Iterator[pa.Table], after: Iterator[pa.Table], schema: pa.Schema) -> Iterator[pa.Table]:
    """Yield label rows with the columns of a later pass; see `with_pass`."""
    cursor = Cursor(after)
    for rows in before:
        if not rows.num_rows:
            continue
        of_pass = cursor.until(rows.column("row")[-1].as_py() + 1)
        if of_pass is None:
            of_pass = pa.schema([*RESULT_SCHEMA, *schema]).empty_table()
        yield with_pass(rows, of_pass, schema)


def with_pass(rows: pa.Table, of_pass: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return label rows with the columns of a later pass.

    A row that did not go through it has null there. A row that failed in it, or that it left out, loses the outputs of
    earlier passes.

    Args:
        rows: label rows so far, in order.
        of_pass: label rows of the pass, in order.
        schema: columns of the outputs of the pass.
    """
    numbers, numbers_of_pass = rows.column("row").to_numpy(), of_pass.column("row").to_numpy()
    went_through = np.isin(numbers, numbers_of_pass)
    places = pa.array(np.searchsorted(numbers_of_pass, numbers), pa.int64(), mask=~went_through)
    results = of_pass.take(places)
    is_lost = pc.fill_null(pc.not_equal(results.column("status"), pa.scalar(OK)), pa.scalar(False))
    for place, field in enumerate(rows.schema):
        column = rows.column(place)
        if field.name in ("status", "error_type", "error_message"):
            column = pc.if_else(pa.array(went_through), results.column(field.name), column)
        elif field.name not in (*RESULT_COLUMNS, *RECORDING_COLUMNS):
            column = column.take(pa.array(np.arange(len(rows)), pa.int64(), mask=np.asarray(is_lost)))
        rows = rows.set_column(place, field, column)
    for field in schema:
        rows = rows.append_column(field, results.column(field.name))
    return rows
