"""Staged results: what a model said of a block, kept until every piece of its shard is there."""

import io
from collections.abc import Collection, Iterable, Mapping

import pyarrow as pa
import pyarrow.compute as pc

from raysp.errors import RunError
from raysp.io.shards import Piece, Shard
from raysp.io.store import Store
from raysp.sink import failing, layout
from raysp.sink.layout import BlockName as BlockName


class BrokenStageError(RunError):
    """The staged blocks of a piece do not make up its rows: they have to be made again."""


def stage(store: Store, name: BlockName, table: pa.Table) -> None:
    """Keep a block's result; one that is there already stays, for it says the same."""
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, table.schema, options=pa.ipc.IpcWriteOptions(unify_dictionaries=True)) as writer:
        writer.write_table(table)
    with failing.passing("block_staged"):
        store.create(layout.stage_path(name), sink.getvalue())


def staged(store: Store, shards: Iterable[Shard], fingerprint: str) -> dict[str, dict[Piece, set[tuple[int, int]]]]:
    """Tell by one listing which blocks (k, of) of which pieces of these shards are staged.

    Blocks of other input or of another pipeline do not count.
    """
    return staged_as(store, {shard.name: (shard.input_id, fingerprint) for shard in shards})


def staged_as(store: Store, wanted: Mapping[str, tuple[str, str]]) -> dict[str, dict[Piece, set[tuple[int, int]]]]:
    """Do as `staged`, with an (input id, fingerprint) of its own for each shard's name."""
    found: dict[str, dict[Piece, set[tuple[int, int]]]] = {}
    for entry in store.list(layout.STAGE):
        block = layout.parse_stage_path(entry.path)
        if block and wanted.get(block.shard) == (block.input_id, block.fingerprint):
            found.setdefault(block.shard, {}).setdefault(block.piece, set()).add((block.k, block.of))
    return found


def is_complete(blocks: Collection[tuple[int, int]]) -> bool:
    """Tell whether all blocks of one cutting of a piece are there."""
    return _complete_cut(blocks) is not None


def read_piece(store: Store, shard: str, piece: Piece, input_id: str, fingerprint: str) -> pa.Table:
    """Return a piece's staged results, one row for each of its rows, in their order.

    Raises:
        RunError: Blocks are missing.
        BrokenStageError: A block cannot be read, or rows are missing or there twice.
    """
    table, order = open_piece(store, shard, piece, input_id, fingerprint)
    return table.take(order)


def open_piece(
    store: Store, shard: str, piece: Piece, input_id: str, fingerprint: str, rows: Collection[int] | None = None
) -> tuple[pa.Table, pa.Array]:  # type: ignore[type-arg]
    """Do as `read_piece`, but leave the rows as staged and return the indices that put them in order beside them.

    With `rows`, only those of the piece's rows are there.
    """
    where = f"{store.url}: staged rows {piece.first} to {piece.end} of {shard!r}"
    names = _names(store, shard, piece, input_id, fingerprint)
    of = _complete_cut([(name.k, name.of) for name in names])
    if of is None:
        found = ", ".join(f"{name.k} of {name.of}" for name in names) or "none"
        raise RunError(f"{where}: blocks are missing (found {found}); run again")
    try:
        table = pa.concat_tables([_read_block(store, name) for name in names if name.of == of])
        order = pc.sort_indices(table.column("row"))
    except (pa.ArrowInvalid, pa.ArrowTypeError, KeyError) as error:
        raise BrokenStageError(f"{where}: a block cannot be read ({error}); run again: they are made anew") from error
    _check_rows(where, range(piece.first, piece.end) if rows is None else rows, table.column("row").to_pylist())
    return table, order


def discard(store: Store, shard: str, piece: Piece) -> None:
    """Remove the staged blocks of one piece, whichever pipeline they are of."""
    _delete_all(store, layout.stage_piece_prefix(shard, piece))


def remove(store: Store, shard: str, only: tuple[str, str] | None = None) -> None:
    """Remove what is staged for a shard: all of it, or that of one (input id, fingerprint)."""
    for entry in list(store.list(layout.stage_folder(shard))):
        block = layout.parse_stage_path(entry.path)
        if only is None or (block and (block.input_id, block.fingerprint) == only):
            store.delete(entry.path)


def _complete_cut(blocks: Collection[tuple[int, int]]) -> int | None:
    """Find into how many blocks a piece was cut, of which all are there; the smallest number if there are several."""
    there = set(blocks)
    cuts = sorted({of for _, of in there})
    return next((of for of in cuts if all((k, of) in there for k in range(of))), None)


def _names(store: Store, shard: str, piece: Piece, input_id: str, fingerprint: str) -> list[BlockName]:
    prefix = f"{layout.stage_piece_prefix(shard, piece)}{input_id}.{fingerprint}."
    names = [layout.parse_stage_path(entry.path) for entry in store.list(prefix)]
    return sorted((name for name in names if name), key=lambda name: (name.of, name.k))


def _read_block(store: Store, name: BlockName) -> pa.Table:
    with store.open(layout.stage_path(name)) as file, pa.ipc.open_file(file) as reader:
        return reader.read_all()


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
