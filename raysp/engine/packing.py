"""Wire form of blocks and receipts in Ray Data: one row each, so that Ray Data never splits or inspects them."""

import json
from collections.abc import Mapping
from dataclasses import asdict

import pyarrow as pa

from raysp.corpus.shards import Piece
from raysp.sink.layout import BlockName
from raysp.sink.receipts import ShardFailure

Told = Mapping[str, object]
"""Wire form of a receipt: `kind` is "block", "failure", "poison" or "fatal"; other keys depend on it."""


def pack(name: BlockName, block: pa.Table) -> pa.Table:
    """Return a table of one row that holds a block."""
    return _row({"kind": "block", **asdict(name)}, _to_ipc(block))


def pack_told(told: Told) -> pa.Table:
    """Return a table of one row that holds a receipt of the reader, which the model's actor forwards."""
    return _row(told, pa.py_buffer(b""))


def unpack(packed: pa.Table) -> tuple[BlockName, pa.Table] | Told:
    """Return the block of a row, without copying its samples, or the receipt in its place."""
    fields = json.loads(packed.column("name")[0].as_py())
    if fields["kind"] != "block":
        told: Told = fields
        return told
    del fields["kind"]
    fields["piece"] = Piece(**fields["piece"])
    return BlockName(**fields), pa.ipc.open_stream(packed.column("block")[0].as_buffer()).read_all()


def receipt_row(told: Told) -> pa.Table:
    """Return a table of one row that holds a receipt."""
    return pa.table({"receipt": [json.dumps(told)]})


def failure(shard: str, reason: str) -> Told:
    """Return a receipt for a shard that cannot be committed."""
    return {"kind": "failure", **asdict(ShardFailure(shard, reason))}


def poison(shard: str, piece: Piece, deaths: int) -> Told:
    """Return a receipt for a piece that repeatedly crashes workers."""
    return {"kind": "poison", "shard": shard, "first": piece.first, "end": piece.end, "deaths": deaths}


def _row(name: Told, data: pa.Buffer) -> pa.Table:
    offsets = pa.py_buffer(b"".join(n.to_bytes(8, "little") for n in (0, data.size)))
    column = pa.Array.from_buffers(pa.large_binary(), 1, [None, offsets, data])
    return pa.table({"name": pa.array([json.dumps(name)]), "block": column})


def _to_ipc(block: pa.Table) -> pa.Buffer:
    """Return a table in a buffer of its exact size: a growing buffer takes twice the memory."""
    measured = pa.MockOutputStream()
    with pa.ipc.new_stream(measured, block.schema) as writer:
        writer.write_table(block)
    data = pa.allocate_buffer(measured.size())
    with pa.FixedSizeBufferWriter(data) as sink, pa.ipc.new_stream(sink, block.schema) as writer:
        writer.write_table(block)
    return data
