"""External merge sort of the staged rows of a piece into the order of the shard.

Small pieces are sorted in memory. For larger ones, sorted runs are written to a scratch file and read back in slices.
So a commit holds about a row group, not a piece: an hour of frame embeddings takes half a gigabyte.
"""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from raysp.columns import WINDOW_COLUMNS
from raysp.sink.table_files import columns_of

PART_BYTES = 256 * 1024
"""Bytes of a run that are read at once; a part holds at least one row."""
NUMBERS = ("row", *WINDOW_COLUMNS)
"""Columns that are kept in memory; `window` and `windows` may be missing."""

Places = npt.NDArray[np.int64]


class Sorter:
    """Sorter of the tables of a piece.

    Args:
        lend: returns the path of a scratch file; called once, and only if the rows do not fit in memory.
        num_bytes: approximate limit of memory, in bytes.
        numbers_a_row: successive values of the column `row` that are one row, from a multiple of it on.
    """

    def __init__(self, lend: Callable[[], Path], num_bytes: int, numbers_a_row: int = 1) -> None:
        self._lend = functools.cache(lend)
        self._num_bytes = num_bytes
        self._numbers_a_row = numbers_a_row
        self._held: list[pa.Table] = []
        self._held_bytes = 0
        self._schema: pa.Schema | None = None
        self._numbers: list[pa.Table] = []
        self._offsets: list[int] = []
        self._part_rows: list[int] = []
        self._part_bytes: list[int] = []

    def add(self, table: pa.Table) -> None:
        """Add a table.

        Raises:
            ArrowInvalid: its columns differ from the columns of earlier tables.
        """
        self._schema = self._schema or table.schema
        if not table.schema.equals(self._schema):
            raise pa.ArrowInvalid(f"found {columns_of(table.schema)}, expected {columns_of(self._schema)}")
        self._held.append(table)
        self._held_bytes += table.nbytes
        # Half, because `_write_run` joins the held tables and so holds the rows twice.
        if self._held_bytes > self._num_bytes // 2:
            self._write_run()

    def slices(self) -> Iterator[pa.Table]:
        """Yield all rows in order, in slices of a quarter of `num_bytes` if they do not fit. A row is never split."""
        if not self._offsets:
            if self._held:
                yield in_order(self._held)
            return
        if self._held:
            self._write_run()
        with pa.OSFile(str(self._lend()), "rb") as file:
            for parts, places in self._cut():
                yield in_order([self._read(file, part, places[parts == part]) for part in np.unique(parts).tolist()])

    def _write_run(self) -> None:
        """Append the held rows to the file, in order and in small parts."""
        run = pa.concat_tables(self._held).unify_dictionaries().combine_chunks()
        rows_a_part = max(1, run.num_rows * PART_BYTES // max(1, self._held_bytes))
        self._held, self._held_bytes = [], 0
        order = _order(run)
        with pa.OSFile(str(self._lend()), "ab") as file:
            for first in range(0, run.num_rows, rows_a_part):
                part = run.take(order.slice(first, rows_a_part))
                self._offsets.append(file.tell())
                self._part_rows.append(part.num_rows)
                self._part_bytes.append(part.nbytes)
                self._numbers.append(_numbers(part))
                with pa.ipc.new_stream(file, part.schema) as writer:
                    writer.write_table(part)

    def _cut(self) -> Iterator[tuple[Places, Places]]:
        """Yield, slice by slice, the part of each row (or window) and the place in that part."""
        parts = np.repeat(np.arange(len(self._part_rows)), self._part_rows)
        places = np.concatenate([np.arange(count) for count in self._part_rows])
        numbers = pa.concat_tables(self._numbers)
        order = np.asarray(_order(numbers), np.int64)
        rows = numbers.column("row").to_numpy()[order] // self._numbers_a_row
        ends = np.append(np.flatnonzero(rows[1:] != rows[:-1]) + 1, len(rows))
        row_bytes = np.array(self._part_bytes) / np.array(self._part_rows)
        bytes_up_to = np.cumsum(row_bytes[parts[order]])[ends - 1]  # bytes up to the end of each row
        row, begin, before = 0, 0, 0.0
        while row < len(ends):
            # At least one row, even if it is larger than a slice.
            row = max(row + 1, int(np.searchsorted(bytes_up_to, before + self._num_bytes / 4, "right")))
            chosen = order[begin : ends[row - 1]]
            yield parts[chosen], places[chosen]
            begin, before = int(ends[row - 1]), float(bytes_up_to[row - 1])

    def _read(self, file: pa.NativeFile, part: int, places: Places) -> pa.Table:
        file.seek(self._offsets[part])
        with pa.ipc.open_stream(file) as reader:
            table = reader.read_all()
        return table if len(places) == table.num_rows else table.take(np.sort(places))


def in_order(tables: list[pa.Table]) -> pa.Table:
    """Return the rows of all tables sorted by row and window."""
    # Neighbouring tables may have different dictionaries, which `take` does not support.
    table = pa.concat_tables(tables).unify_dictionaries()
    return table.take(_order(table))


def _order(table: pa.Table) -> pa.UInt64Array:
    keys: list[tuple[str, Literal["ascending"]]] = [("row", "ascending"), ("window", "ascending")]
    return pc.sort_indices(table, sort_keys=[key for key in keys if key[0] in table.column_names])


def _numbers(table: pa.Table) -> pa.Table:
    return table.select([name for name in NUMBERS if name in table.column_names])
