"""Messages of workers to the driver. JSON carries them through Ray Data, with a tag for the type."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, NamedTuple

from raysp.corpus.shards import Piece
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

RAISED = "raised "
"""Beginning of a line in place of a message: an error follows, pickled, as hexadecimal digits."""

_KINDS: Mapping[type[Message], str] = {
    LabelledBlock: "block",
    ShardFailure: "failure",
    PoisonedPiece: "poison",
    FatalFailure: "fatal",
}


def to_json(message: Message) -> str:
    """Serialise a message."""
    return json.dumps({"kind": _KINDS[type(message)], **asdict(message)})


def from_json(text: str) -> Message:
    """Parse a message of `to_json`."""
    fields = json.loads(text)
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
