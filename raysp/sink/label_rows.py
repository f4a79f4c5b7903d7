"""Rows of a finished label shard, and rows that `rows="ok"` left out of it, read in order and in batches.

Rows of withdrawn recordings (`.raysp/forgotten.json`) lose their labels whenever a label shard is written.
"""

import json
from collections.abc import Collection, Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raysp import bounds
from raysp.columns import RESULT_COLUMNS, SKIPPED
from raysp.corpus.pages import PagedFile
from raysp.corpus.shards import Shard
from raysp.corpus.views import table_without_views
from raysp.errors import StoreError
from raysp.ops.remedies import WITHDRAWN
from raysp.sink import footer, layout, table_files
from raysp.sink.word_errors import texts_of
from raysp.storage.store import Store
from raysp.words import label_again

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
    path = footer.read(store, shard.name).rest_path
    if not path or store.stat(path) is None:
        return
    remedy = f"label its shard again with `{label_again(shard.name)}`"
    for table in table_files.read(store, path, remedy):
        yield table_without_views(table)


def remove_rest(store: Store, before: footer.LabelFooter) -> None:
    """Remove the rows left out of an earlier label shard, if it names any; no later one names this file."""
    if path := before.rest_path:
        store.delete(path)


def load_forgotten(store: Store) -> frozenset[str]:
    """Return the ids of withdrawn recordings, as texts.

    Raises:
        StoreError: the record cannot be read.
    """
    if store.stat(layout.FORGOTTEN) is None:
        return frozenset()
    try:
        return frozenset(str(one) for one in bounds.parse_record(store.read(layout.FORGOTTEN))["ids"])
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{store.url}/{layout.FORGOTTEN}: not a record of withdrawn recordings ({bounds.plain(error)}); "
            "remove it, and forget all withdrawn recordings again"
        ) from error


def record_forgotten(store: Store, ids: Collection[str]) -> None:
    """Add ids of withdrawn recordings to the record. The caller holds the lease."""
    if not (known := load_forgotten(store)) >= {*ids}:
        store.replace(layout.FORGOTTEN, json.dumps({"ids": sorted(known | {*ids})}).encode())


def is_named(table: pa.Table, ids: Collection[str]) -> npt.NDArray[np.bool_]:
    """Return a mask of the rows with one of these ids."""
    return np.array([one is not None and one in ids for one in texts_of(table.column("id"))], bool)


def without_labels(table: pa.Table, is_withdrawn: npt.NDArray[np.bool_]) -> pa.Table:
    """Return label rows of which some are `skipped`, `withdrawn`, and have no label."""
    mask = pa.array(is_withdrawn)
    values = {"status": SKIPPED, "error_type": WITHDRAWN, "error_message": "its label was removed on request"}
    first = table.schema.get_field_index("row")
    for place in range(first + 1, table.num_columns):
        field = table.schema.field(place)
        new = pa.scalar(values.get(field.name) if field.name in RESULT_COLUMNS else None, field.type)
        table = table.set_column(place, field, pc.if_else(mask, new, table.column(place)))
    return table


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
