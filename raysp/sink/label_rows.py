"""The rows of a finished label shard, and those that `rows="ok"` left beside it, read some at a time in their order."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raysp.io.shards import Shard
from raysp.io.store import Store
from raysp.sink import footer, layout

ROWS_A_BATCH = 10_000


def read_labels(store: Store, shard: Shard, columns: list[str] | None = None) -> Iterator[pa.Table]:
    """Yield a label shard some rows at a time, an empty table first; its page checksums are checked."""
    with store.open(shard.name) as file:
        reader = pq.ParquetFile(file, page_checksum_verification=True, pre_buffer=False)
        empty = reader.schema_arrow.remove_metadata().empty_table()
        yield empty if columns is None else empty.select(columns)
        for batch in reader.iter_batches(ROWS_A_BATCH, columns=columns, use_threads=False):
            yield pa.Table.from_batches([batch]).replace_schema_metadata(None)


def read_rest(store: Store, shard: Shard) -> Iterator[pa.Table]:
    """Yield the rows that `rows="ok"` left out of a label shard, if any, some at a time."""
    found = footer.read(store, shard.name)
    path = layout.errors_path(shard.name, found.input_id, found.fingerprint, found.rest_id)
    if not found.rest_id or store.stat(path) is None:
        return
    with store.open(path) as file, pa.ipc.open_stream(file) as reader:
        for batch in reader:
            yield pa.Table.from_batches([batch])


class Cursor:
    """Takes tables apart by row number."""

    def __init__(self, tables: Iterator[pa.Table]) -> None:
        self._tables = tables
        self._held: list[pa.Table] = []

    def until(self, end: int) -> pa.Table | None:
        """Give the next rows in front of `end`; None where there never was a table."""
        for table in self._tables:
            self._held.append(table)
            if table.num_rows and table.column("row")[-1].as_py() >= end:
                break
        if not self._held:
            return None
        held = pa.concat_tables(self._held)
        num_rows = int(np.searchsorted(held.column("row").to_numpy(), end))
        self._held = [held.slice(num_rows)]
        return held.slice(0, num_rows)


def side_by_side(labels: pa.Table | None, rest: pa.Table | None) -> pa.Table:
    """Put together the rows of a label shard and those beside it."""
    assert labels is not None
    return labels if rest is None or rest.num_rows == 0 else in_order(pa.concat_tables([labels, rest]))


def in_order(table: pa.Table) -> pa.Table:
    """Sort by row number."""
    # Neighbours may bring dictionaries of their own, which cannot be taken from together.
    return table.unify_dictionaries().take(pc.sort_indices(table.column("row")))
