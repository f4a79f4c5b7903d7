"""Staged results: what a model said of a block, kept until every piece of its shard is there.

A block holds rows, or windows of longer rows: those have a column `window`, their number in the row, and `windows`, how
many the row has, which stands on its last one alone (1 on a row that is one window).
"""

import io
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from raysp.corpus.shards import Piece, Shard
from raysp.errors import RunError
from raysp.sink import failing, layout
from raysp.sink.layout import BlockName as BlockName
from raysp.sink.merging import Sorter, in_order
from raysp.storage.store import Store

Join = Callable[[pa.Table], pa.Table]
"""Makes a row of each run of windows of one row, which are given sorted and complete. Its columns are those of a staged
row that is one window, less those that only windows have."""


BATCH_BYTES = 8 * 1024 * 1024
"""Of a block, read at once."""


class BrokenStageError(RunError):
    """The staged blocks of a piece do not make up its rows: they have to be made again."""


def stage(store: Store, name: BlockName, table: pa.Table) -> None:
    """Keep a block's result; one that is there already stays, for it says the same."""
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, table.schema, options=pa.ipc.IpcWriteOptions(unify_dictionaries=True)) as writer:
        writer.write_table(table, max_chunksize=max(1, len(table) * BATCH_BYTES // max(1, table.nbytes)))
    with failing.passing("block_staged"):
        store.create(layout.stage_path(name), sink.getvalue())


Blocks = dict[tuple[int, int], int]
"""Staged blocks (k, of) of a piece, with their bytes."""


def staged(store: Store, shards: Iterable[Shard], fingerprint: str) -> dict[str, dict[Piece, Blocks]]:
    """Return by one listing which blocks of which pieces of these shards are staged.

    Blocks of other input or of another pipeline do not count.
    """
    return staged_as(store, {shard.name: (shard.input_id, fingerprint) for shard in shards})


def staged_as(store: Store, wanted: Mapping[str, tuple[str, str]]) -> dict[str, dict[Piece, Blocks]]:
    """Do as `staged`, with an (input id, fingerprint) of its own for each shard's name."""
    found: dict[str, dict[Piece, Blocks]] = {}
    for entry in store.list(layout.STAGE):
        block = layout.parse_stage_path(entry.path)
        if block and wanted.get(block.shard) == (block.input_id, block.fingerprint):
            found.setdefault(block.shard, {}).setdefault(block.piece, {})[block.k, block.of] = entry.num_bytes
    return found


def is_complete(blocks: Collection[tuple[int, int]]) -> bool:
    """Tell whether all blocks (k, of) of a piece are there: a last one, and all that are before it."""
    return _complete_cut(blocks) is not None


def unstaged(shard: Shard, blocks: Mapping[Piece, Collection[tuple[int, int]]]) -> tuple[Piece, ...]:
    """Return the pieces of which blocks are missing."""
    return tuple(piece for piece in shard.pieces if not is_complete(blocks.get(piece, ())))


def read_rows(
    store: Store,
    shard: str,
    piece: Piece,
    input_id: str,
    fingerprint: str,
    join: Join | None = None,
    *,
    rows: Collection[int] | None = None,
    names: Sequence[BlockName] | None = None,
    num_bytes: int = 64 * 1024 * 1024,
) -> Iterator[pa.Table]:
    """Yield a piece's staged results in order, one row for each of its rows, some at a time; all is checked before.

    Tables in which a longer row was joined lack the columns that only windows have.

    Args:
        store: the sink.
        shard: its name.
        piece: to read.
        input_id: of the shard.
        fingerprint: of the pipeline.
        join: makes rows of the windows of longer ones.
        rows: those of the piece's rows that are there; None: all.
        names: the piece's blocks as `listed`; None: listed here.
        num_bytes: about what may be held in memory; a single row may be larger.

    Raises:
        RunError: Blocks are missing, or windows are there but no `join`.
        BrokenStageError: A block cannot be read, or rows or windows are missing or there twice.
    """
    where = f"{store.url}: staged rows {piece.first} to {piece.end} of {shard!r}"
    names = _names(store, shard, piece, input_id, fingerprint) if names is None else names
    of = _complete_cut([(name.k, name.of) for name in names])
    if of is None:
        found = ", ".join(f"{name.k} of {name.of or 'more'}" for name in names) or "none"
        raise RunError(f"{where}: blocks are missing (found {found}); run again")
    chosen = {name.k: name for name in names if name.of == of or (name.of == 0 and name.k < of - 1)}
    with ExitStack() as stack:
        sorter = Sorter(lambda: stack.enter_context(store.scratch()), num_bytes)
        try:
            for k in range(of):
                for table in _read_block(store, chosen[k]):
                    sorter.add(table)
            _check(where, sorter.numbers(), range(piece.first, piece.end) if rows is None else rows, join)
        except (pa.ArrowInvalid, pa.ArrowTypeError, KeyError) as error:
            raise BrokenStageError(
                f"{where}: a block cannot be read ({error}); run again: they are made anew"
            ) from error
        for table in sorter.slices():
            yield join_windows(where, table, join)


def listed(store: Store, shard: str, input_id: str, fingerprint: str) -> dict[Piece, list[BlockName]]:
    """List a shard's staged blocks of one input and pipeline, by piece, in one request."""
    found: dict[Piece, list[BlockName]] = {}
    for entry in store.list(layout.stage_folder(shard)):
        block = layout.parse_stage_path(entry.path)
        if block and (block.input_id, block.fingerprint) == (input_id, fingerprint):
            found.setdefault(block.piece, []).append(block)
    return {piece: sorted(names, key=_place) for piece, names in found.items()}


def remove_listed(store: Store, blocks: Mapping[Piece, Iterable[BlockName]]) -> None:
    """Remove what was `listed`; a block that came later is left to `gc`."""
    for names in blocks.values():
        for name in names:
            store.delete(layout.stage_path(name))


def discard(store: Store, shard: str, piece: Piece) -> None:
    """Remove the staged blocks of one piece, whichever pipeline they are of."""
    _delete_all(store, layout.stage_piece_prefix(shard, piece))


def discard_unfinished(store: Store, shards: Iterable[Shard], fingerprint: str) -> None:
    """Remove the blocks of pieces that are not whole: they are made again, and may then be cut otherwise."""
    for shard, pieces in staged(store, shards, fingerprint).items():
        for piece, blocks in pieces.items():
            if not is_complete(blocks):
                discard(store, shard, piece)


def _complete_cut(blocks: Collection[tuple[int, int]]) -> int | None:
    """Find into how many blocks a piece was cut, of which all are there; the smallest number if there are several."""
    there = set(blocks)
    cuts = sorted(of for k, of in there if k == of - 1)
    return next((of for of in cuts if all((k, 0) in there or (k, of) in there for k in range(of))), None)


def _names(store: Store, shard: str, piece: Piece, input_id: str, fingerprint: str) -> list[BlockName]:
    prefix = f"{layout.stage_piece_prefix(shard, piece)}{input_id}.{fingerprint}."
    names = [layout.parse_stage_path(entry.path) for entry in store.list(prefix)]
    return sorted((name for name in names if name), key=_place)


def _place(name: BlockName) -> tuple[int, int]:
    return name.of, name.k


def _read_block(store: Store, name: BlockName) -> Iterator[pa.Table]:
    with store.open(layout.stage_path(name)) as file, pa.ipc.open_file(file) as reader:
        if reader.num_record_batches == 0:
            yield reader.schema.empty_table()
        for number in range(reader.num_record_batches):
            yield pa.Table.from_batches([reader.get_batch(number)])


def join_windows(where: str, table: pa.Table, join: Join | None) -> pa.Table:
    """Join the windows of longer rows; only the columns that all rows have then are left.

    Rows stay in order where they are.

    Raises:
        BrokenStageError: a row's windows are not all there, or there twice.
    """
    windows = _windows_of(where, table, join)
    if windows is None or join is None:
        return table
    rows = join(windows)
    whole = table.filter(_is_whole(table)).select(rows.column_names)
    return in_order([whole, rows]) if whole.num_rows else rows


def _windows_of(where: str, table: pa.Table, join: Join | None) -> pa.Table | None:
    """Return the windows of longer rows, sorted and checked; None where there are none."""
    if "windows" not in table.column_names or (is_whole := _is_whole(table)).all():
        return None
    if join is None:
        raise RunError(
            f"{where}: found windows of longer rows and nothing to join them; this is a bug of raysp: report it"
        )
    windows = table.filter(~is_whole).sort_by([("row", "ascending"), ("window", "ascending")])
    _check_windows(where, windows)
    return windows


def _is_whole(table: pa.Table) -> npt.NDArray[np.bool_]:
    """Return which rows of a table are no windows of longer ones."""
    return np.asarray(table.column("windows").to_numpy() == 1)  # null is NaN


def _check(where: str, numbers: pa.Table, wanted: Collection[int], join: Join | None) -> None:
    """Refuse rows and windows that are missing or there twice."""
    windows = _windows_of(where, numbers, join)
    rows = numbers.column("row") if windows is None else numbers.filter(_is_whole(numbers)).column("row")
    long_rows = [] if windows is None else pc.unique(windows.column("row")).to_pylist()
    _check_rows(where, wanted, rows.to_pylist() + long_rows)


def _check_windows(where: str, windows: pa.Table) -> None:
    """Refuse rows that do not have each of their windows once; they are sorted."""
    row, window = (windows.column(name).to_numpy() for name in ("row", "window"))
    num_windows = np.nan_to_num(windows.column("windows").to_numpy()).astype(int)
    ends = np.append(row[1:] != row[:-1], True)  # the last window that is there of each row
    starts = np.insert(ends[:-1], 0, True)
    expected = np.where(starts, 0, np.insert(window[:-1] + 1, 0, 0))
    wrong = (window != expected) | (num_windows != np.where(ends, window + 1, 0))
    if wrong.any():
        first = int(wrong.argmax())
        raise BrokenStageError(
            f"{where}: row {row[first]}: found window {window[first]} of {num_windows[first] or 'more'}, expected "
            f"window {expected[first]}{' to be the last one' if ends[first] else ''}; run again: they are made anew"
        )


def _check_rows(where: str, wanted: Collection[int], rows: list[int | None]) -> None:
    expected = set(wanted)
    found = set(rows)
    if len(rows) == len(expected) and found == expected:
        return
    missing, foreign = sorted(expected - found), sorted(found - expected, key=str)
    raise BrokenStageError(
        f"{where}: found {len(rows)} rows, expected each of {len(expected)} once; missing {missing[:3]}, "
        f"not of this piece {foreign[:3]}, there twice {len(rows) - len(found)}; run again: they are made anew"
    )


def _delete_all(store: Store, prefix: str) -> None:
    for entry in list(store.list(prefix)):
        store.delete(entry.path)
