"""Messages of workers to the driver. JSON carries them through Ray Data, with a tag for the type.

Blocks and messages are one row each there, so that Ray Data never splits or inspects them. Both carry the tracebacks
that their process has noted.
"""

import json
from bdb import BdbQuit
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, NamedTuple, cast

import pyarrow as pa

from raysp import tracebacks
from raysp.corpus.shards import Piece
from raysp.errors import RayspError
from raysp.sink.layout import BlockName
from raysp.sink.receipts import BlockReceipt, ShardFailure

if TYPE_CHECKING:
    from raysp.ops.passes.measured_budget import MeasuredBudget


class RowError(NamedTuple):
    """An error row of a block."""

    row: int
    error_type: str
    message: str


@dataclass(frozen=True)
class LabelledBlock:
    """A block that was labelled and staged."""

    receipt: BlockReceipt
    claimed_seconds: float
    """Seconds of audio in the whole piece, as far as they were known before decoding."""
    errors: Mapping[str, int]
    """Error rows of a single window, by type."""
    long_errors: Mapping[int, str]
    """Types of error rows of several windows, by row: other blocks may report the same row."""
    skipped: Mapping[str, int]
    """Skipped rows, by reason."""
    examples: tuple[RowError, ...]
    """A few error rows."""
    memory_bytes: int = 0
    """Highest memory of the model's process so far (`ops.labelling.Figures`)."""
    measured: "MeasuredBudget | None" = None
    """Size of passes that the actor chose before this block."""


@dataclass(frozen=True)
class PoisonedPiece:
    """A piece that repeatedly crashes workers, and that was therefore not started again."""

    shard: str
    piece: Piece
    crashes: int


@dataclass(frozen=True)
class FatalFailure:
    """A failure that no other shard would escape, which ends the run."""

    reason: str


Message = LabelledBlock | ShardFailure | PoisonedPiece | FatalFailure

_KINDS: Mapping[type[Message], str] = {
    LabelledBlock: "block",
    ShardFailure: "failure",
    PoisonedPiece: "poison",
    FatalFailure: "fatal",
}


TRACEBACKS = "tracebacks"
"""Key of the tracebacks of errors, which travel with the next block or message."""


def to_json(message: Message) -> str:
    """Serialise a message, and the tracebacks noted by this process."""
    return json.dumps({"kind": _KINDS[type(message)], TRACEBACKS: tracebacks.taken(), **asdict(message)})


def from_json(text: str) -> Message:
    """Parse a message of `to_json`; its tracebacks are noted in this process."""
    fields = json.loads(text)
    tracebacks.keep(fields.pop(TRACEBACKS))
    match fields.pop("kind"):
        case "block":
            fields["receipt"] = BlockReceipt(**fields["receipt"])
            fields["long_errors"] = {int(row): error_type for row, error_type in fields["long_errors"].items()}
            fields["examples"] = tuple(RowError(*one) for one in fields["examples"])
            if fields["measured"]:
                from raysp.ops.passes.measured_budget import MeasuredBudget

                fields["measured"] = MeasuredBudget.parse(fields["measured"])
            return LabelledBlock(**fields)
        case "failure":
            return ShardFailure(**fields)
        case "poison":
            return PoisonedPiece(**{**fields, "piece": Piece(**fields["piece"])})
        case _:
            return FatalFailure(**fields)


def shard_failure(shard: str, error: BaseException) -> ShardFailure:
    """Return the failure of a shard, and note the traceback of its cause, if it has one besides its message."""
    if isinstance(error, BdbQuit):  # of workers alone: elsewhere it has become a KeyboardInterrupt
        where = tracebacks.place(error) or "a function"
        return ShardFailure(shard, f"{where}: workers of Ray have no terminal for a debugger; run with --engine here")
    tracebacks.raise_if_stopped(error)
    if isinstance(error, RayspError):
        if error.__cause__ is not None:
            tracebacks.note(error.__cause__)
        return ShardFailure(shard, str(error))
    tracebacks.note(error)
    return ShardFailure(shard, tracebacks.described(error))


def pack(name: BlockName, block: pa.Table) -> pa.Table:
    """Return a table of one row that holds a block."""
    return _row(json.dumps({TRACEBACKS: tracebacks.taken(), **asdict(name)}), _to_ipc(block))


def pack_message(message: Message) -> pa.Table:
    """Return a table of one row that holds a message of the reader, which the model's actor forwards."""
    return _row(None, pa.py_buffer(to_json(message).encode()))


def unpack(packed: pa.Table) -> tuple[BlockName, pa.Table] | Message:
    """Return the block of a row, without copying its samples, or the message in its place."""
    name, data = packed.column("name")[0].as_py(), packed.column("block")[0].as_buffer()
    if name is None:
        return from_json(data.to_pybytes().decode())
    fields = json.loads(name)
    tracebacks.keep(fields.pop(TRACEBACKS))
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
