"""Recorded plan: the shards of a sink and the pieces of each, written once. Existing pieces never change.

New shards of later runs are added as further parts. If two parts name the same shard, the first one is used, unless
a later one supersedes it: shards whose content changed and that are labelled again.
"""

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, islice
from typing import Any, Literal, cast

import pyarrow as pa
import pyarrow.compute as pc

from raysp.corpus.arrow import read_all
from raysp.corpus.shards import Piece, Shard
from raysp.errors import StoreError
from raysp.sink import layout
from raysp.storage.store import Store

_COLUMNS: Mapping[str, pa.DataType] = {
    "name": pa.string(),
    "url": pa.string(),
    "num_bytes": pa.int64(),
    "version": pa.string(),
    "num_rows": pa.int64(),
    "input_id": pa.string(),
    "pieces": pa.list_(pa.struct([("first", pa.int64()), ("end", pa.int64())])),
    "kind": pa.string(),
    "part": pa.string(),
    "seconds": pa.float64(),
    "labels": pa.string(),
    "labels_version": pa.string(),
}
SCHEMA = pa.schema(_COLUMNS)
WORTH_COMPRESSING = 100  # shards; with fewer, the frames around every buffer take more bytes than they save
BATCH_SHARDS = 10_000
"""Shards that are written and read at a time."""
_SUPERSEDES = {b"raysp.supersedes": b"true"}


def record(store: Store, shards: Iterable[Shard], *, supersede: bool = False) -> None:
    """Append shards as the next part. `load` returns the plan that results from all parts.

    Args:
        store: the sink.
        shards: new shards; with `supersede` also recorded shards whose content changed.
        supersede: whether these shards replace earlier records of them.

    Raises:
        PlanError: A shard's name cannot be stored.
    """
    listed = list(shards)
    for shard in listed:
        layout.check_shard_name(shard.name)
    if not listed:
        return
    data = _encode(listed, supersede=supersede)
    number = max(_parts(store), default=-1) + 1
    # A run that took the number after the listing keeps its part: `load` merges them.
    while not store.create(layout.plan_path(number), data):
        number += 1


def load(store: Store) -> list[Shard]:
    """Return all recorded shards in the order of recording; empty if nothing was recorded."""
    shards: dict[str, Shard] = {}
    for number in sorted(_parts(store)):
        supersedes, part = _decode(store, layout.plan_path(number))
        for shard in part:
            if supersedes or shard.name not in shards:
                shards[shard.name] = shard
    return list(shards.values())


def _parts(store: Store) -> list[int]:
    numbers = (layout.parse_plan_path(entry.path) for entry in store.list(layout.PLAN))
    return [number for number in numbers if number is not None]


def _encode(shards: Sequence[Shard], *, supersede: bool) -> bytes:
    sink = io.BytesIO()
    schema = SCHEMA.with_metadata(_SUPERSEDES) if supersede else SCHEMA
    compression: Literal["zstd"] | None = "zstd" if len(shards) >= WORTH_COMPRESSING else None
    with pa.ipc.new_file(sink, schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
        for start in range(0, len(shards), BATCH_SHARDS) or (0,):
            writer.write_batch(_batch(shards[start : start + BATCH_SHARDS], schema))
    return sink.getvalue()


def _batch(shards: Sequence[Shard], schema: pa.Schema) -> pa.RecordBatch:
    """Return shards as a record batch."""
    # By column: a million shards as dictionaries would take a gigabyte.
    columns = {name: [getattr(shard, name) for shard in shards] for name in _COLUMNS if name != "pieces"}
    pieces = [piece for shard in shards for piece in shard.pieces]
    edges = [pa.array([getattr(piece, edge) for piece in pieces], pa.int64()) for edge in ("first", "end")]
    ends = accumulate((len(shard.pieces) for shard in shards), initial=0)
    cut = pa.ListArray.from_arrays(pa.array(ends, pa.int32()), pa.StructArray.from_arrays(edges, ["first", "end"]))
    arrays = [cut if name == "pieces" else pa.array(columns[name], kind) for name, kind in _COLUMNS.items()]
    return pa.RecordBatch.from_arrays(
        [one.cast(kind) for one, kind in zip(arrays, _COLUMNS.values(), strict=True)], schema=schema
    )


def _decode(store: Store, path: str) -> tuple[bool, Iterator[Shard]]:
    """Return whether a part supersedes earlier ones, and its shards."""
    supersedes, table = _read(store, path)
    return supersedes, _shards(table)


def _read(store: Store, path: str) -> tuple[bool, pa.Table]:
    """Return whether a part supersedes earlier ones, and its rows."""
    try:
        whole = read_all(store.read(path))
        supersedes = (whole.schema.metadata or {}).items() >= _SUPERSEDES.items()
        table = whole.select(SCHEMA.names)
    except (pa.ArrowInvalid, KeyError) as error:
        raise StoreError(
            f"{store.url}/{path}: this part of the recorded plan cannot be read ({error}); restore it from a copy, "
            "or use another sink"
        ) from error
    return supersedes, table


def _shards(table: pa.Table) -> Iterator[Shard]:
    """Yield the shards of a table, a batch at a time."""
    for batch in table.to_batches(BATCH_SHARDS):
        columns = {name: batch.column(name) for name in _COLUMNS}
        cut = cast("pa.ListArray[Any]", columns.pop("pieces"))
        first, end = (pc.struct_field(cut.flatten(), edge).to_pylist() for edge in ("first", "end"))
        pieces = iter(map(Piece, first, end))
        numbers = pc.list_value_length(cut).to_pylist()  # None if null: `fill_null` would import pandas
        for number, *values in zip(numbers, *(column.to_pylist() for column in columns.values()), strict=True):
            yield Shard(pieces=tuple(islice(pieces, number or 0)), **dict(zip(columns, values, strict=True)))
