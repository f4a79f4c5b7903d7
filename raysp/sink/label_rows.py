"""Rows of a finished label shard, and rows that `rows="ok"` left out of it, read in order and in batches."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raysp import bounds
from raysp.corpus.arrow import check_buffers
from raysp.corpus.pages import PagedFile
from raysp.corpus.shards import Shard
from raysp.corpus.views import table_without_views
from raysp.sink import footer, layout
from raysp.storage.store import Store

ROWS_A_BATCH = 10_000
BYTES_A_BATCH = 16 * 1024 * 1024
"""Arrow memory of a batch: a row of frame embeddings takes half a megabyte, a row of texts a hundred bytes."""
_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "FLOAT": 4, "INT64": 8, "DOUBLE": 8, "INT96": 12}


def read_labels(store: Store, shard: Shard, columns: list[str] | None = None) -> Iterator[pa.Table]:
    """Yield a label shard in batches limited by bytes, an empty table first; page checksums are checked.

    Raises:
        ArrowInvalid: it is damaged, or its pages decode to too many bytes.
    """
    with store.open(shard.name) as file:
        reader = PagedFile(file, checksums=True)
        empty = table_without_views(reader.schema.remove_metadata().empty_table())
        yield empty if columns is None else empty.select(columns)
        for group in range(reader.metadata.num_row_groups):
            num_rows = rows_a_batch(reader.metadata.row_group(group), columns)
            try:
                for batch in reader.batches(group, num_rows, columns):
                    yield table_without_views(pa.Table.from_batches([batch])).replace_schema_metadata(None)
            except bounds.TooLargeError as error:
                raise pa.ArrowInvalid(str(error)) from None


def rows_a_batch(group: pq.RowGroupMetaData, columns: list[str] | None = None) -> int:
    """Return the number of rows of a row group to read at once, from the sizes in the footer.

    Repeated values are stored once, so numbers are counted with their width.
    """
    num_bytes = 0
    for number in range(group.num_columns):
        column = group.column(number)
        if columns is None or column.path_in_schema.split(".")[0] in columns:
            num_bytes += max(column.total_uncompressed_size, column.num_values * _WIDTHS.get(column.physical_type, 0))
    return min(max(1, group.num_rows * BYTES_A_BATCH // max(1, num_bytes)), ROWS_A_BATCH)


def read_rest(store: Store, shard: Shard) -> Iterator[pa.Table]:
    """Yield the rows that `rows="ok"` left out of a label shard, if any, in batches."""
    found = footer.read(store, shard.name)
    path = layout.errors_path(shard.name, found.input_id, found.fingerprint, found.rest_id)
    if not found.rest_id or store.stat(path) is None:
        return
    with store.open(path) as file:
        check_buffers(file)
        reader = pa.ipc.open_stream(file)
        for batch in reader:
            yield table_without_views(pa.Table.from_batches([batch]))


class Cursor:
    """Reader that splits tables by row number."""

    def __init__(self, tables: Iterator[pa.Table]) -> None:
        self._tables = tables
        self._held: list[pa.Table] = []

    def until(self, end: int) -> pa.Table | None:
        """Return all next rows before `end`; None if there were no tables at all."""
        while not any(table.num_rows and table.column("row")[-1].as_py() >= end for table in self._held):
            if (table := next(self._tables, None)) is None:
                break
            self._held.append(table)
        return self._take(end) if self._held else None

    def some(self, end: int) -> pa.Table | None:
        """Return next rows before `end`, from one table; empty if no rows are left, None if there were no tables."""
        while not sum(table.num_rows for table in self._held):
            if (table := next(self._tables, None)) is None:
                break
            self._held.append(table)
        return self._take(end) if self._held else None

    def _take(self, end: int) -> pa.Table:
        held = pa.concat_tables(self._held)
        num_rows = int(np.searchsorted(held.column("row").to_numpy(), end))
        self._held = [held.slice(num_rows)]
        return held.slice(0, num_rows)


def stretches(labels: Cursor, rest: Cursor, first: int, end: int) -> Iterator[tuple[pa.Table, int]]:
    """Yield the rows from `first` to `end` in batches, each with the row number that follows it."""
    while first < end:
        found = labels.some(end)
        assert found is not None
        first = found.column("row")[-1].as_py() + 1 if found.num_rows else end
        yield side_by_side(found, rest.until(first)), first


def side_by_side(labels: pa.Table | None, rest: pa.Table | None) -> pa.Table:
    """Return the rows of a label shard and the rows left out of it, in order."""
    assert labels is not None
    return labels if rest is None or rest.num_rows == 0 else in_order(pa.concat_tables([labels, rest]))


def in_order(table: pa.Table) -> pa.Table:
    """Return the rows sorted by row number."""
    # Neighbouring tables may have different dictionaries, which `take` does not support.
    return table.unify_dictionaries().take(pc.sort_indices(table.column("row")))
