"""What workers tell the driver of a run."""

from bdb import BdbQuit
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from raysp import tracebacks
from raysp.corpus.shards import Piece
from raysp.errors import RayspError
from raysp.sink.receipts import PieceReceipt, ShardFailure


class RowError(NamedTuple):
    """An error row."""

    row: int
    error_type: str
    message: str


@dataclass(frozen=True)
class LabelledPiece:
    """A piece, or a part of one: staged, or labelled so far."""

    receipt: PieceReceipt
    is_staged: bool
    num_rows: int
    """Rows of the piece to label."""
    seconds_left: float = 0.0
    """Seconds of audio that are not labelled yet, by headers."""
    examples: Sequence[RowError] = ()
    """A few error rows."""
    memory_bytes: int = 0
    """Highest memory of the model's process so far (`ops.labelling.Figures`)."""

    @property
    def place(self) -> tuple[str, Piece]:
        """Shard, and the rows of the piece."""
        return self.receipt.shard, Piece(self.receipt.first, self.receipt.end)


@dataclass(frozen=True)
class RetriedPiece:
    """A piece that is labelled again, because the process that had it in hand was lost."""

    shard: str
    part: Piece


class LostReader(NamedTuple):
    """The process that read a piece was lost."""

    node: str
    """Node on which it had begun; empty: it had not."""
    is_memory: bool
    """Whether it was ended because the node ran out of memory."""


@dataclass(frozen=True)
class FatalFailure:
    """A failure that no other shard would escape, which ends the run."""

    reason: str


class ReadingError(Exception):
    """The rows of a piece are not read.

    Args:
        outcome: the message of the piece.
    """

    def __init__(self, outcome: "Message | LostReader") -> None:
        super().__init__(outcome)
        self.outcome = outcome


Message = LabelledPiece | RetriedPiece | ShardFailure | FatalFailure


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
