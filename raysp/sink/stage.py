"""Staged results: the label rows of a piece, in order, kept until every piece of its shard is staged.

One file holds a piece, or a part of one whose workers crashed. Files of several attempts may overlap: a commit uses
those that hold every row once.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa

from raysp.columns import ERROR, OK, SKIPPED
from raysp.corpus.shards import Piece, Shard
from raysp.errors import RunError
from raysp.sink import fault_injection, layout, table_files
from raysp.sink.layout import StagedName
from raysp.sink.table_files import DamagedTableError
from raysp.storage.store import Store

BATCH_BYTES = 8 * 1024 * 1024
"""Bytes of staged results that are read at once."""
OTHER_ROWS = "holds other rows"


@dataclass(frozen=True)
class Staged:
    """A file of staged results."""

    name: StagedName
    num_bytes: int

    @property
    def rows(self) -> Piece:
        """The rows that it holds."""
        return self.name.rows


def write(store: Store, tables: Iterable[pa.Table], name: Callable[[], StagedName]) -> None:
    """Stage label rows in order; an existing file is kept, because it is equal.

    Args:
        store: the sink.
        tables: the rows, at least one table.
        name: returns the identity of the rows; called when all are written, since it has the number of error rows.
    """
    with store.scratch() as scratch:
        with scratch.open("wb") as file, table_files.Writer(file) as writer:
            for table in tables:
                num_rows = max(1, len(table) * BATCH_BYTES // max(1, table.nbytes))
                for first in range(0, len(table), num_rows):
                    writer.write(table.slice(first, num_rows))
        with fault_injection.passing("piece_staged"):
            store.publish(scratch, layout.stage_path(name()))


def read(store: Store, staged: Staged, rows: Sequence[int], schema: pa.Schema) -> Iterator[pa.Table]:
    """Yield staged results in batches.

    Args:
        store: the sink.
        staged: the file.
        rows: numbers of the rows that it must hold, in order.
        schema: columns that it must have.

    Raises:
        RunError: it cannot be read, or holds other values than a run stages; it was removed.
    """
    path, remedy = layout.stage_path(staged.name), "run again: its rows are labelled again"
    place = 0
    try:
        for table in table_files.read(store, path, remedy):
            if fault := _fault(table, schema, rows[place : place + len(table)]):
                raise DamagedTableError(f"{store.url}/{path}: {fault}; {remedy}")
            place += len(table)
            yield table
        if place != len(rows):
            raise DamagedTableError(f"{store.url}/{path}: {OTHER_ROWS}; {remedy}")
    except DamagedTableError as error:
        store.delete(path)
        raise RunError(str(error)) from error


def _fault(table: pa.Table, schema: pa.Schema, rows: Sequence[int]) -> str:
    """Describe how staged results differ from the expected schema and rows; empty if they do not."""
    if differing := table_files.differing(table.schema, schema):
        return differing
    if not np.array_equal(table.column("row").to_numpy(), rows):
        return OTHER_ROWS
    unknown = {*table.column("status").to_pylist()} - {OK, SKIPPED, ERROR}
    return f"found the status {min(map(repr, unknown))}, expected ok, skipped or error" if unknown else ""


def listed(store: Store, shards: Iterable[Shard], fingerprint: str) -> dict[str, list[Staged]]:
    """Return the staged results by shard, from one listing; results of other input or another pipeline are ignored."""
    input_ids = {shard.name: shard.input_id for shard in shards}
    prefix = layout.stage_folder(next(iter(input_ids))) if len(input_ids) == 1 else layout.STAGE
    by_shard: dict[str, list[Staged]] = {}
    for entry in store.list(prefix):
        name = layout.parse_stage_path(entry.path)
        if name and (input_ids.get(name.shard), fingerprint) == (name.input_id, name.fingerprint):
            by_shard.setdefault(name.shard, []).append(Staged(name, entry.num_bytes))
    return by_shard


def tiles(piece: Piece, staged: Iterable[Staged]) -> list[Staged]:
    """Return staged results within a piece, in order, that do not overlap.

    They hold as many rows as possible, among those as few error rows, and are then as few files as possible.
    """
    inside = [file for file in staged if piece.first <= file.rows.first < file.rows.end <= piece.end]
    places = sorted({piece.first, piece.end, *(place for file in inside for place in (file.rows.first, file.rows.end))})
    best: dict[int, tuple[int, int, list[Staged]]] = {piece.first: (0, 0, [])}
    """By place: rows without a result up to there, error rows, and the results."""
    for before, place in pairwise(places):
        missing, errors, chosen = best[before]
        options = [(missing + place - before, errors, chosen)]
        for file in inside:
            if file.rows.end == place:
                missing, errors, chosen = best[file.rows.first]
                options.append((missing, errors + file.name.errors, [*chosen, file]))
        best[place] = min(options, key=lambda option: (option[0], option[1], len(option[2])))
    return best[piece.end][2]


def unstaged(pieces: Iterable[Piece], staged: Collection[Staged]) -> list[Piece]:
    """Return the rows of pieces that are not staged: whole pieces, or parts of them."""
    missing: list[Piece] = []
    for piece in pieces:
        row = piece.first
        for tile in tiles(piece, staged):
            if row < tile.rows.first:
                missing.append(Piece(row, tile.rows.first))
            row = tile.rows.end
        if row < piece.end:
            missing.append(Piece(row, piece.end))
    return missing


def remove(store: Store, staged: Collection[Staged]) -> None:
    """Remove staged results."""
    for file in staged:
        store.delete(layout.stage_path(file.name))


def discard(store: Store, shard: str, *, rows: Piece | None = None, only_errors: bool = False) -> int:
    """Remove all staged results of a shard, of any pipeline, and return their number.

    Args:
        store: the sink.
        shard: name of the shard.
        rows: only results of rows within these; None: of all rows.
        only_errors: only results with error rows.
    """
    removed = 0
    for entry in list(store.list(layout.stage_folder(shard))):  # a store need not support removals during a listing
        name = layout.parse_stage_path(entry.path)
        if name is None or name.shard != shard or (only_errors and not name.errors):
            continue
        if rows is None or (rows.first <= name.rows.first and name.rows.end <= rows.end):
            store.delete(entry.path)
            removed += 1
    return removed
