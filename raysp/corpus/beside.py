"""Columns of label shards that stand beside the shards of a corpus, row for row."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raysp import bounds
from raysp.corpus.kinds import Options
from raysp.corpus.pages import PagedFile
from raysp.corpus.sealed import SealedFile
from raysp.corpus.shards import Piece, Shard, one_line, place_of
from raysp.errors import ShardError, StoreError
from raysp.storage.store import scheme_of

_ROW, _ID = "row", "id"


def options_beside(labels: str, url: str, storage_options: Options) -> Options:
    """Return the options of the storage of label shards: those of the source, if it has the same scheme."""
    return storage_options if scheme_of(labels) == scheme_of(url) else None


def column_names(shard: Shard, storage_options: Options = None) -> list[str]:
    """Return the names of the columns of the label shard beside a shard, as `without_ids`; none without one.

    Raises:
        ShardError: it cannot be read.
    """
    if not shard.labels:
        return []
    store, name = place_of(shard.labels, options_beside(shard.labels, shard.url, storage_options))
    with _explained(shard), store.open(name) as file:
        return without_ids(SealedFile.of(file).metadata.schema.to_arrow_schema()).names


def without_ids(labels: pa.Schema) -> pa.Schema:
    """Return the columns of a label shard that are read with those of its shard: all but the ids."""
    return pa.schema([field for field in labels if field.name != _ID])


@contextmanager
def _explained(shard: Shard) -> Iterator[None]:
    try:
        yield
    except ShardError:
        raise
    except StoreError as error:
        raise ShardError(str(error)) from error
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ShardError(f"{shard.labels}: {one_line(error)}. Label the shard again") from error


def read_columns(shard: Shard, piece: Piece, columns: Sequence[str], storage_options: Options = None) -> pa.Table:
    """Read columns of the label shard beside a shard, for all rows of a piece, in order; null for rows without labels.

    Raises:
        ShardError: the label shard is damaged, or changed since it was planned.
    """
    store, name = place_of(shard.labels, options_beside(shard.labels, shard.url, storage_options))
    with _explained(shard):
        found = store.stat(name)
        if found is None or found.version != shard.labels_version:
            raise ShardError(f"{shard.labels}: this label shard changed since it was planned: run again")
        with store.open(name) as file:
            table = _read_rows(SealedFile.of(file).pages(), piece, [*dict.fromkeys((*columns, _ROW))])
    return table.select([*columns]).take(_places(table.column(_ROW).to_numpy(), piece))


def _read_rows(labels: PagedFile, piece: Piece, columns: Sequence[str]) -> pa.Table:
    """Read the rows of a label shard whose row numbers are in a piece."""
    within = (pc.field(_ROW) >= piece.first) & (pc.field(_ROW) < piece.end)
    tables, decoded = [labels.schema.empty_table().select(list(columns))], 0
    leaves = labels.metadata.schema  # one for each field of a struct, such as a kept recording
    number = next(place for place in range(len(leaves)) if leaves.column(place).path == _ROW)
    for group in range(labels.metadata.num_row_groups):
        known: Any = labels.metadata.row_group(group).column(number).statistics
        if known is not None and known.has_min_max and (known.max < piece.first or known.min >= piece.end):
            continue
        for batch in labels.batches(group, piece.num_rows, columns):
            tables.append(pa.Table.from_batches([batch]).filter(within))
            decoded += tables[-1].nbytes
            bounds.check(decoded, bounds.MOST_DECODED_BYTES, "bytes decoded")
    return pa.concat_tables(tables)


def _places(rows: np.ndarray, piece: Piece) -> pa.Int64Array:
    """Return the place of each row of a piece within sorted row numbers, int64; null for rows that are not there."""
    wanted = np.arange(piece.first, piece.end)
    places = np.searchsorted(rows, wanted)
    is_there = np.isin(wanted, rows)
    return pa.array(places, pa.int64(), mask=~is_there)
