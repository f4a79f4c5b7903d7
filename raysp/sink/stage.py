"""Staged results: outputs of a model for one block, kept until every piece of its shard is staged.

A block holds rows, or windows of longer rows. Windows have a column `window`, their number in the row, and `windows`,
the number of windows of the row, which is set only on its last window (1 for a row that is one window).
"""

import io
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from raysp.corpus.arrow import check_buffers
from raysp.corpus.shards import Piece, Shard
from raysp.errors import RunError
from raysp.sink import fault_injection, layout
from raysp.sink.layout import BlockName as BlockName
from raysp.sink.recording_versions import RECORDING, VERSION
from raysp.sink.sorting import Sorter, in_order
from raysp.storage.store import Store

Join = Callable[[pa.Table], pa.Table]
"""Callable that joins the windows of each row into one row. The windows are passed sorted and complete. The result has
the columns of a staged row that is one window, less those that only windows have."""


BATCH_BYTES = 8 * 1024 * 1024
"""Bytes of a block that are read at once."""


class BrokenStageError(RunError):
    """The staged blocks of a piece do not match its rows and have to be made again."""


def stage(store: Store, name: BlockName, table: pa.Table) -> None:
    """Write a block's result; an existing one is kept, because it is equal."""
    sink = io.BytesIO()
    # Arrow's file format does not support dictionaries that change between batches.
    with pa.ipc.new_file(sink, table.schema, options=pa.ipc.IpcWriteOptions(unify_dictionaries=True)) as writer:
        writer.write_table(table, max_chunksize=max(1, len(table) * BATCH_BYTES // max(1, table.nbytes)))
    with fault_injection.passing("block_staged"):
        store.create(layout.stage_path(name), sink.getvalue())


Blocks = dict[tuple[int, int], int]
"""Staged blocks (k, of) of a piece, with their sizes in bytes."""


def staged(store: Store, shards: Iterable[Shard], fingerprint: str) -> dict[str, dict[Piece, Blocks]]:
    """Return the staged blocks of these shards by shard and piece, from one listing.

    Blocks of other input or of another pipeline are ignored.
    """
    return staged_as(store, {shard.name: (shard.input_id, fingerprint) for shard in shards})


def staged_as(store: Store, wanted: Mapping[str, tuple[str, str]]) -> dict[str, dict[Piece, Blocks]]:
    """Return the blocks as `staged` does, for an (input id, fingerprint) by shard name."""
    found: dict[str, dict[Piece, Blocks]] = {}
    for entry in store.list(layout.STAGE):
        block = layout.parse_stage_path(entry.path)
        if block and wanted.get(block.shard) == (block.input_id, block.fingerprint):
            found.setdefault(block.shard, {}).setdefault(block.piece, {})[block.k, block.of] = entry.num_bytes
    return found


def is_complete(blocks: Collection[tuple[int, int]]) -> bool:
    """Return whether all blocks (k, of) of a piece are staged: a last one, and all before it."""
    return _complete_cut(blocks) is not None


def unstaged(shard: Shard, blocks: Mapping[Piece, Collection[tuple[int, int]]]) -> tuple[Piece, ...]:
    """Return the pieces with missing blocks."""
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
    """Yield a piece's staged results in order, one row for each of its rows, in batches.

    Rows and windows are checked first, and the recordings of windows when they are joined.

    Tables in which a longer row was joined lack the columns that only windows have.

    Args:
        store: the sink.
        shard: name of the shard.
        piece: the piece to read.
        input_id: input id of the shard.
        fingerprint: fingerprint of the pipeline.
        join: joins the windows of longer rows.
        rows: rows of the piece that are staged; None: all.
        names: the piece's blocks from `listed`; None: they are listed here.
        num_bytes: approximate limit of memory, in bytes; a single row may be larger.

    Raises:
        RunError: Blocks are missing, or there are windows without a `join`.
        BrokenStageError: A block cannot be read, rows or windows are missing or duplicate, or a recording was
            replaced between two windows.
    """
    where = f"{store.url}: staged rows {piece.first} to {piece.end} of {shard!r}"
    names = _names(store, shard, piece, input_id, fingerprint) if names is None else names
    of = _complete_cut([(name.k, name.of) for name in names])
    if of is None:
        found = ", ".join(f"{name.k} of {name.of or 'more'}" for name in names) or "none"
        raise RunError(f"{where}: blocks are missing (found {found}); run again")
    # Only the last block of a piece knows their number; `of` is 0 in the names of those before it.
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
                f"{where}: a block cannot be read ({error}); run again: these rows are labelled again"
            ) from error
        for table in sorter.slices():
            yield join_windows(where, table, join)


def listed(store: Store, shard: str, input_id: str, fingerprint: str) -> dict[Piece, list[BlockName]]:
    """Return a shard's staged blocks of one input and pipeline by piece, from one listing."""
    found: dict[Piece, list[BlockName]] = {}
    for entry in store.list(layout.stage_folder(shard)):
        block = layout.parse_stage_path(entry.path)
        if block and (block.input_id, block.fingerprint) == (input_id, fingerprint):
            found.setdefault(block.piece, []).append(block)
    return {piece: sorted(names, key=_place) for piece, names in found.items()}


def remove_listed(store: Store, blocks: Mapping[Piece, Iterable[BlockName]]) -> None:
    """Remove the blocks that `listed` returned; later blocks are left to `gc`."""
    for names in blocks.values():
        for name in names:
            store.delete(layout.stage_path(name))


def discard(store: Store, shard: str, piece: Piece) -> int:
    """Remove the staged blocks of one piece, of any pipeline, and return their number."""
    # A list, since a store need not support removals during its listing.
    entries = list(store.list(layout.stage_piece_prefix(shard, piece)))
    for entry in entries:
        store.delete(entry.path)
    return len(entries)


def discard_unfinished(store: Store, shards: Iterable[Shard], fingerprint: str) -> None:
    """Remove the blocks of incomplete pieces: they are made again, and may then be cut differently."""
    for shard, pieces in staged(store, shards, fingerprint).items():
        for piece, blocks in pieces.items():
            if not is_complete(blocks):
                discard(store, shard, piece)


def discard_other(store: Store, shards: Iterable[Shard], fingerprint: str) -> None:
    """Remove the blocks of these shards that are of other input or of another pipeline."""
    for shard in shards:
        for entry in list(store.list(layout.stage_folder(shard.name))):
            block = layout.parse_stage_path(entry.path)
            if block and (block.input_id, block.fingerprint) != (shard.input_id, fingerprint):
                store.delete(entry.path)


def _complete_cut(blocks: Collection[tuple[int, int]]) -> int | None:
    """Return the number of blocks of a complete cut of a piece, the smallest of several; None without such a cut."""
    # Two runs may have cut a piece differently; blocks of one cut alone make it complete.
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
    with store.open(layout.stage_path(name)) as file:
        check_buffers(file)
        reader = pa.ipc.open_file(file)
        if reader.num_record_batches == 0:
            yield reader.schema.empty_table()
        for number in range(reader.num_record_batches):
            yield pa.Table.from_batches([reader.get_batch(number)])


def join_windows(where: str, table: pa.Table, join: Join | None) -> pa.Table:
    """Join the windows of longer rows; return only the columns that all rows have then.

    Rows that are in order stay in order.

    Raises:
        BrokenStageError: windows of a row are missing or duplicate, or of two versions of its recording.
    """
    windows = _windows_of(where, table, join)
    if windows is None or join is None:
        return table
    _check_recordings(where, windows)
    rows = join(windows)
    whole = table.filter(_is_whole(table)).select(rows.column_names)
    return in_order([whole, rows]) if whole.num_rows else rows


def _windows_of(where: str, table: pa.Table, join: Join | None) -> pa.Table | None:
    """Return the windows of longer rows, sorted and checked; None if there are no such windows."""
    if "windows" not in table.column_names or (is_whole := _is_whole(table)).all():
        return None
    if join is None:
        raise RunError(
            f"{where}: found windows of longer rows, but no way to join them; this is a bug in raysp: report it"
        )
    windows = table.filter(~is_whole).sort_by([("row", "ascending"), ("window", "ascending")])
    _check_windows(where, windows)
    return windows


def _is_whole(table: pa.Table) -> npt.NDArray[np.bool_]:
    """Return a mask of the rows of a table that are not windows of longer ones."""
    return np.asarray(table.column("windows").to_numpy() == 1)  # null becomes NaN


def _check(where: str, numbers: pa.Table, wanted: Collection[int], join: Join | None) -> None:
    """Raise if rows or windows are missing or duplicate."""
    windows = _windows_of(where, numbers, join)
    rows = numbers.column("row") if windows is None else numbers.filter(_is_whole(numbers)).column("row")
    long_rows = [] if windows is None else pc.unique(windows.column("row")).to_pylist()
    _check_rows(where, wanted, rows.to_pylist() + long_rows)


def _check_windows(where: str, windows: pa.Table) -> None:
    """Raise unless each row has each of its windows once; `windows` must be sorted."""
    row, window = (windows.column(name).to_numpy() for name in ("row", "window"))
    # Null, which numpy shows as NaN, on all but the last window of a row; 0 from here on.
    num_windows = np.nan_to_num(windows.column("windows").to_numpy()).astype(int)
    ends = np.append(row[1:] != row[:-1], True)  # True at the last staged window of each row
    starts = np.insert(ends[:-1], 0, True)
    expected = np.where(starts, 0, np.insert(window[:-1] + 1, 0, 0))
    wrong = (window != expected) | (num_windows != np.where(ends, window + 1, 0))
    if wrong.any():
        first = int(wrong.argmax())
        raise BrokenStageError(
            f"{where}: row {row[first]}: found window {window[first]} of {num_windows[first] or 'more'}, expected "
            f"window {expected[first]}{' to be the last' if ends[first] else ''}; run again: these rows are "
            "labelled again"
        )


def _check_recordings(where: str, windows: pa.Table) -> None:
    """Raise if the windows of a row were read from several versions of its recording; `windows` must be sorted."""
    if VERSION not in windows.column_names:
        return
    rows, paths, versions = (windows.column(name).to_pylist() for name in ("row", RECORDING, VERSION))
    for (row, path, version), (next_row, _, next_version) in pairwise(zip(rows, paths, versions, strict=True)):
        if row == next_row and version != next_version:
            raise BrokenStageError(
                f"{where}: row {row}: its recording {path!r:.80} was replaced between its windows; run again: these "
                "rows are labelled again"
            )


def _check_rows(where: str, wanted: Collection[int], rows: list[int | None]) -> None:
    expected = set(wanted)
    found = set(rows)
    if len(rows) == len(expected) and found == expected:
        return
    missing, foreign = sorted(expected - found), sorted(found - expected, key=str)
    raise BrokenStageError(
        f"{where}: found {len(rows)} rows, expected each of {len(expected)} once; missing {missing[:3]}, "
        f"not of this piece {foreign[:3]}, duplicates {len(rows) - len(found)}; run again: these rows are labelled "
        "again"
    )
