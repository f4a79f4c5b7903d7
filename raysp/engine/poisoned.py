"""A piece over which workers keep dying, set aside until the rest of a run is done."""

from dataclasses import dataclass

from raysp.corpus.shards import Piece, Shard
from raysp.sink.todo import Retry


@dataclass(frozen=True)
class Poisoned:
    """A piece that killed its workers."""

    shard: Shard
    piece: Piece
    retry: Retry | None = None

    @property
    def rows(self) -> tuple[int, ...]:
        """Give the rows to label, by their numbers in the shard."""
        return self.retry.of(self.piece) if self.retry else tuple(range(self.piece.first, self.piece.end))

    @property
    def stage_id(self) -> str | None:
        """Give what stands in for the fingerprint where rows are retried."""
        return self.retry.stage_id if self.retry else None
