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
from raysp.corpus.parquet import NotSealedError, SealedFile
from raysp.corpus.shards import Shard
from raysp.corpus.tables import table_without_views
from raysp.errors import StoreError
from raysp.ops.rows import WITHDRAWN
from raysp.sink import footer, layout, records, table_files
from raysp.sink.receipts import texts_of
from raysp.sink.sorting import in_order
from raysp.storage.store import Store
from raysp.words import label_again

ROWS_A_BATCH = 10_000
BYTES_A_BATCH = 16 * 1024 * 1024
"""Arrow memory of a batch: a row of frame embeddings takes half a megabyte, a row of texts a hundred bytes."""
_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "FLOAT": 4, "INT64": 8, "DOUBLE": 8, "INT96": 12}


class DamagedLabelsError(StoreError):
    """A label shard whose rows cannot be read as they were written."""


def read_labels(store: Store, shard: Shard, columns: list[str] | None = None) -> Iterator[pa.Table]:
    """Yield a label shard in batches limited by bytes, an empty table first; see `read_file`."""
    return read_file(store, shard.name, shard, columns)


def read_file(
    store: Store, name: str, shard: Shard | None, columns: list[str] | None = None, *, most_rows: int = ROWS_A_BATCH
) -> Iterator[pa.Table]:
    """Yield a label shard in batches limited by bytes, an empty table first; all that is read is compared with digests.

    Args:
        store: the sink.
        name: name of the label shard.
        shard: its shard, whose input and number of rows are compared; None: they are not.
        columns: columns to read; None: all.
        most_rows: rows of a batch at most.

    Raises:
        DamagedLabelsError: it is damaged, or lacks a column.
        ChangedError: it is not a label shard of raysp, or its footer is damaged.
        StoreError: it cannot be read.
    """
    with footer.opened(store, name) as file:
        sealed = SealedFile.of(file)
        reader = sealed.pages()
        if shard is not None and footer.input_id(sealed) != shard.input_id:
            raise NotSealedError("its rows belong to another input")
        empty = table_without_views(reader.schema.remove_metadata().empty_table())
        if differing := _differing(empty.schema, columns):
            raise _damaged(store, name, differing)
        yield empty if columns is None else empty.select(columns)
        last, num_rows = -1, shard.num_rows if shard is not None else bounds.MOST_SHARD_ROWS
        try:
            for group in range(reader.metadata.num_row_groups):
                num_rows_a_batch = min(most_rows, rows_a_batch(reader.metadata.row_group(group), columns))
                for batch in reader.batches(group, num_rows_a_batch, columns):
                    table = table_without_views(pa.Table.from_batches([batch])).replace_schema_metadata(None)
                    last = _checked(table, last, num_rows)
                    yield table
        except StoreError:
            raise
        except (pa.ArrowException, OSError, ValueError) as error:
            raise _damaged(store, name, error) from error


def _differing(schema: pa.Schema, columns: list[str] | None) -> str:
    """Describe the first column that is repeated, missing or of a wrong type; empty if all are there."""
    if twice := [name for name in schema.names if schema.names.count(name) > 1]:
        return f"it has several columns {twice[0]!r}"
    for name in ("id", *RESULT_COLUMNS) if columns is None else columns:
        expected = RESULT_COLUMNS.get(name)
        stored = schema.field(name).type if name in schema.names else None
        if stored is None or (expected and stored != pa.type_for_alias(expected)):
            return f"its column {name!r} is {stored or 'missing'}"
    return ""


def _checked(table: pa.Table, last: int, num_rows: int) -> int:
    """Check the rows of a batch after row `last`, and return the number of its last row."""
    names = {*table.column_names}
    table.select([name for name in RESULT_COLUMNS if name in names]).validate(full=True)
    if "row" not in names:
        return last
    column = table.column("row")
    numbers = np.concatenate([[last], column.drop_null().to_numpy(), [num_rows]])
    if column.null_count or (np.diff(numbers) <= 0).any():
        raise ValueError(f"its row numbers do not ascend within the {num_rows:,} rows of the shard")
    return int(numbers[-2])


def _damaged(store: Store, name: str, reason: object) -> "DamagedLabelsError":
    return DamagedLabelsError(
        f"{store.url}/{name}: this label shard is damaged ({bounds.plain(reason)}); label its shard again with "
        f"`{label_again(name)}`"
    )


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


def read_rest(store: Store, shard: Shard, columns: list[str] | None = None) -> Iterator[pa.Table]:
    """Yield the rows that `rows="ok"` left out of a label shard, if any, in batches.

    Raises:
        ChangedError: as `read_labels`.
        StoreError: the file of these rows is damaged, or cannot be read.
    """
    path = footer.read(store, shard.name).rest_path
    if not path or store.stat(path) is None:
        return
    remedy, last = f"label its shard again with `{label_again(shard.name)}`", -1
    for table in table_files.read(store, path, remedy):
        try:
            if differing := _differing(table.schema, None) or _differing(table.schema, columns):
                raise ValueError(differing)
            last = _checked(table, last, shard.num_rows)
        except (pa.ArrowException, ValueError) as error:
            raise StoreError(f"{store.url}/{path}: damaged ({bounds.plain(error)}); {remedy}") from error
        plain = table_without_views(table)
        yield plain if columns is None else plain.select(columns)


def load_forgotten(store: Store) -> frozenset[str]:
    """Return the ids of withdrawn recordings, as texts.

    Raises:
        StoreError: the record cannot be read.
    """
    if store.stat(layout.FORGOTTEN) is None:
        return frozenset()
    try:
        return frozenset(records.parse(store.read(layout.FORGOTTEN), dict[str, list[str]])["ids"])
    except (ValueError, KeyError) as error:
        raise StoreError(
            f"{store.url}/{layout.FORGOTTEN}: not a record of withdrawn recordings ({bounds.plain(error)}); "
            "remove it, and forget all withdrawn recordings again"
        ) from error


def record_forgotten(store: Store, ids: Collection[str]) -> None:
    """Add ids of withdrawn recordings to the record. The caller holds the lease."""
    if not (recorded := load_forgotten(store)) >= {*ids}:
        store.replace(layout.FORGOTTEN, json.dumps({"ids": sorted(recorded | {*ids})}).encode())


def is_named(table: pa.Table, ids: Collection[str]) -> npt.NDArray[np.bool_]:
    """Return a mask of the rows with one of these ids."""
    return np.array([id_ is not None and id_ in ids for id_ in texts_of(table.column("id"))], bool)


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

    def until(self, end: int, *, last: int | None = None) -> pa.Table | None:
        """Return the next rows before `end`, of the tables up to one that ends with row `last` (None: `end`) or later.

        It is empty if no rows are left, None if there were no tables at all.
        """
        last = end if last is None else last
        while not any(table.num_rows and table.column("row")[-1].as_py() >= last for table in self._held):
            if (table := next(self._tables, None)) is None:
                break
            self._held.append(table)
        if not self._held:
            return None
        buffered = pa.concat_tables(self._held)
        num_rows = int(np.searchsorted(buffered.column("row").to_numpy(), end))
        self._held = [buffered.slice(num_rows)]
        return buffered.slice(0, num_rows)


def stretches(labels: Cursor, rest: Cursor, first: int, end: int) -> Iterator[tuple[pa.Table, int]]:
    """Yield the rows from `first` to `end` in batches, each with the row number that follows it."""
    while first < end:
        batch = labels.until(end, last=0)  # of one table
        assert batch is not None
        first = batch.column("row")[-1].as_py() + 1 if batch.num_rows else end
        yield side_by_side(batch, rest.until(first)), first


def side_by_side(labels: pa.Table | None, rest: pa.Table | None) -> pa.Table:
    """Return the rows of a label shard and the rows left out of it, in order."""
    assert labels is not None
    return labels if rest is None or rest.num_rows == 0 else in_order([labels, rest])
