"""Recorded plan: the shards of a sink and the pieces of each, written once. Existing pieces never change.

New shards of later runs are added as further parts. If two parts name the same shard, the first one is used, unless
a later one supersedes it: shards whose content changed and that are labelled again.
"""

import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import inf
from typing import Any

import pyarrow as pa

from raysp import bounds
from raysp.corpus.shards import Piece, Shard
from raysp.errors import PlanError, StoreError
from raysp.sink import layout, table_files
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
_INPUT_ID = re.compile(r"[0-9a-f]+")


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


def load(store: Store) -> dict[str, Shard]:
    """Return all recorded shards by name, in the order of recording; empty if nothing was recorded.

    Raises:
        StoreError: a part is damaged, or holds other values than `record` writes.
    """
    shards: dict[str, Shard] = {}
    for number in sorted(_parts(store)):
        for supersedes, shard in _read(store, layout.plan_path(number)):
            if supersedes or shard.name not in shards:
                shards[shard.name] = shard
    return shards


def _parts(store: Store) -> list[int]:
    return layout.plan_numbers(entry.path for entry in store.list(layout.PLAN))


def _encode(shards: Sequence[Shard], *, supersede: bool) -> bytes:
    file = io.BytesIO()
    schema = SCHEMA.with_metadata(_SUPERSEDES) if supersede else SCHEMA
    with table_files.Writer(file, "zstd" if len(shards) >= WORTH_COMPRESSING else None) as writer:
        for start in range(0, len(shards), BATCH_SHARDS):
            rows = [vars(shard) | {"pieces": [*map(vars, shard.pieces)]} for shard in shards[start:][:BATCH_SHARDS]]
            writer.write(pa.Table.from_pylist(rows, schema))
    return file.getvalue()


def _read(store: Store, path: str) -> Iterator[tuple[bool, Shard]]:
    """Yield the shards of a part, each with whether the part supersedes earlier ones."""
    remedy = "restore this part of the recorded plan from a copy, or use another sink"
    for table in table_files.read(store, path, remedy, SCHEMA):
        supersedes = (table.schema.metadata or {}).items() >= _SUPERSEDES.items()
        try:
            yield from ((supersedes, _shard(row)) for row in table.to_pylist())
        except (ValueError, PlanError) as error:
            raise StoreError(f"{store.url}/{path}: {bounds.plain(error)}; {remedy}") from error


def _shard(row: dict[str, Any]) -> Shard:
    """Return the shard of a row of a plan; raise ValueError or PlanError for values that `record` never writes."""
    pieces, seconds = row.pop("pieces"), row.pop("seconds")
    if None in (pieces, *row.values()) or any(fields is None or None in fields.values() for fields in pieces):
        raise ValueError("a value is missing")
    shard = Shard(**row, pieces=tuple(Piece(**fields) for fields in pieces), seconds=seconds)
    layout.check_shard_name(shard.name)
    edges = [0, *(piece.end for piece in shard.pieces)]
    firsts = [piece.first for piece in shard.pieces]
    if firsts != edges[:-1] or edges != sorted({*edges}) or edges[-1] != shard.num_rows:
        raise ValueError(f"the pieces of {shard.name!r} do not cover its {shard.num_rows} rows in order")
    if shard.num_bytes < 0 or shard.num_rows > bounds.MOST_SHARD_ROWS or not 0 <= (seconds or 0) < inf:
        raise ValueError(f"{shard.name!r} has {shard.num_bytes} bytes, {shard.num_rows} rows, {seconds} seconds")
    if not _INPUT_ID.fullmatch(shard.input_id):
        raise ValueError(f"{shard.name!r} has the input id {bounds.shortened(shard.input_id)}, expected a hash")
    return shard
