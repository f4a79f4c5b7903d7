"""Wire form of blocks and messages in Ray Data: one row each, so that Ray Data never splits or inspects them."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import cast

import pyarrow as pa

from raysp.corpus.shards import Piece
from raysp.labelling.engine.workers.messages import Message, from_json, to_json
from raysp.sink.layout import BlockName


def pack(name: BlockName, block: pa.Table) -> pa.Table:
    """Return a table of one row that holds a block."""
    return _row(json.dumps(asdict(name)), _to_ipc(block))


def pack_message(message: Message) -> pa.Table:
    """Return a table of one row that holds a message of the reader, which the model's actor forwards."""
    return _row(None, pa.py_buffer(to_json(message).encode()))


def unpack(packed: pa.Table) -> tuple[BlockName, pa.Table] | Message:
    """Return the block of a row, without copying its samples, or the message in its place."""
    name, data = packed.column("name")[0].as_py(), packed.column("block")[0].as_buffer()
    if name is None:
        return from_json(data.to_pybytes().decode())
    fields = json.loads(name)
    fields["piece"] = Piece(**fields["piece"])
    return BlockName(**fields), pa.ipc.open_stream(data).read_all()


def message_row(message: Message) -> pa.Table:
    """Return a table of one row that holds a message to the driver."""
    return pa.table({"message": [to_json(message)]})


def read_messages(rows: pa.Table) -> Iterator[Message]:
    """Yield the messages of a table of `message_row`."""
    for text in rows.column("message").to_pylist():
        yield from_json(cast("str", text))


def _row(name: str | None, data: pa.Buffer) -> pa.Table:
    offsets = pa.py_buffer(b"".join(n.to_bytes(8, "little") for n in (0, data.size)))
    column = pa.Array.from_buffers(pa.large_binary(), 1, [None, offsets, data])
    return pa.table({"name": pa.array([name], pa.string()), "block": column})


def _to_ipc(block: pa.Table) -> pa.Buffer:
    """Return a table in a buffer of its exact size: a growing buffer takes twice the memory."""
    measured = pa.MockOutputStream()
    with pa.ipc.new_stream(measured, block.schema) as writer:
        writer.write_table(block)
    data = pa.allocate_buffer(measured.size())
    with pa.FixedSizeBufferWriter(data) as sink, pa.ipc.new_stream(sink, block.schema) as writer:
        writer.write_table(block)
    return data
