"""How blocks and receipts cross Ray Data: one row each, so that it hands them on whole and never looks inside."""

import json
from collections.abc import Mapping
from dataclasses import asdict

import pyarrow as pa

from raysp.corpus.shards import Piece
from raysp.sink.layout import BlockName
from raysp.sink.receipts import ShardFailure

Told = Mapping[str, object]
"""A receipt as it travels: `kind` is "block", "failure", "poison" or "fatal"; the rest depends on it."""


def pack(name: BlockName, block: pa.Table) -> pa.Table:
    """Put a block into one row."""
    return _row({"kind": "block", **asdict(name)}, _to_ipc(block))


def pack_told(told: Told) -> pa.Table:
    """Put what reading has to tell in place of a block into one row; the model's actor only passes it on."""
    return _row(told, pa.py_buffer(b""))


def unpack(packed: pa.Table) -> tuple[BlockName, pa.Table] | Told:
    """Take a block out again without copying its samples, or what was told in its place."""
    fields = json.loads(packed.column("name")[0].as_py())
    if fields["kind"] != "block":
        told: Told = fields
        return told
    del fields["kind"]
    fields["piece"] = Piece(**fields["piece"])
    return BlockName(**fields), pa.ipc.open_stream(packed.column("block")[0].as_buffer()).read_all()


def receipt_row(told: Told) -> pa.Table:
    """Put a receipt into one row."""
    return pa.table({"receipt": [json.dumps(told)]})


def failure(shard: str, reason: str) -> Told:
    """Tell that a shard will not be committed."""
    return {"kind": "failure", **asdict(ShardFailure(shard, reason))}


def poison(shard: str, piece: Piece, deaths: int) -> Told:
    """Tell that workers keep dying over a piece."""
    return {"kind": "poison", "shard": shard, "first": piece.first, "end": piece.end, "deaths": deaths}


def _row(name: Told, data: pa.Buffer) -> pa.Table:
    offsets = pa.py_buffer(b"".join(n.to_bytes(8, "little") for n in (0, data.size)))
    column = pa.Array.from_buffers(pa.large_binary(), 1, [None, offsets, data])
    return pa.table({"name": pa.array([json.dumps(name)]), "block": column})


def _to_ipc(block: pa.Table) -> pa.Buffer:
    """Write a table into memory of just its size: what grows takes twice as much."""
    measured = pa.MockOutputStream()
    with pa.ipc.new_stream(measured, block.schema) as writer:
        writer.write_table(block)
    data = pa.allocate_buffer(measured.size())
    with pa.FixedSizeBufferWriter(data) as sink, pa.ipc.new_stream(sink, block.schema) as writer:
        writer.write_table(block)
    return data
