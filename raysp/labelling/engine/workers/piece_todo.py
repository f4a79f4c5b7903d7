"""A piece to label, as the driver sends it to readers."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Self

from raysp.corpus import sources
from raysp.corpus.shards import Piece, Shard
from raysp.errors import ShardError
from raysp.sink.receipts import ShardFailure
from raysp.sink.todo import Retry, Todo


@dataclass(frozen=True)
class PieceTodo:
    """A piece to label, or its retried rows."""

    shard: Shard
    piece: Piece
    retry: Retry | None = None

    @property
    def rows(self) -> tuple[int, ...]:
        """Numbers of the rows to label, in the shard."""
        return self.retry.of(self.piece) if self.retry else tuple(range(self.piece.first, self.piece.end))

    @property
    def stage_id(self) -> str | None:
        """Staging id of the retry, used in place of the job's; None if this is not a retry."""
        return self.retry.stage_id if self.retry else None

    def __str__(self) -> str:
        """Return the name of the shard, and the rows of the piece."""
        return f"{self.shard.name} {self.piece.first}-{self.piece.end}"

    def to_json(self) -> str:
        """Serialise the piece with the part of its shard that it needs.

        Raises:
            ShardError: the shard has no such part.
        """
        part = {"retry": {"stage_id": self.retry.stage_id, "rows": self.retry.of(self.piece)}} if self.retry else {}
        pieces = [[self.piece.first, self.piece.end]]
        return json.dumps({**asdict(sources.narrow(self.shard, self.piece)), "pieces": pieces, **part})

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Parse the JSON of `to_json`."""
        fields = json.loads(text)
        piece, part = Piece(*fields.pop("pieces")[0]), fields.pop("retry", None)
        retry = Retry(part["stage_id"], tuple(part["rows"])) if part else None
        return cls(Shard(**fields, pieces=(piece,)), piece, retry)


def serialised(todos: Iterable[Todo]) -> Iterator[tuple[PieceTodo, str] | ShardFailure]:
    """Yield each piece with its JSON, or the failure of its shard if it cannot be serialised."""
    for todo in todos:
        for piece in todo.pieces:
            one = PieceTodo(todo.shard, piece, todo.retry)
            try:
                yield one, one.to_json()
            except ShardError as error:
                yield ShardFailure(todo.shard.name, str(error))
