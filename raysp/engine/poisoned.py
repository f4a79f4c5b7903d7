"""A piece that repeatedly crashes workers, deferred until the rest of a run is done."""

from dataclasses import dataclass

from raysp.corpus.shards import Piece, Shard
from raysp.sink.todo import Retry


@dataclass(frozen=True)
class Poisoned:
    """A piece that crashed its workers."""

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
