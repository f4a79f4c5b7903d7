"""Work left on a sink: pieces of shards that are not staged, and rows of label shards to label once more."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from raysp.corpus.shards import Piece, Shard
from raysp.errors import ChangedError
from raysp.sink import commit, stage
from raysp.storage.store import Store


@dataclass(frozen=True)
class Retry:
    """A label shard to make again, or some of its rows."""

    stage_id: str
    """Id of this attempt, which replaces the fingerprint in the names of its staged results."""
    rows: tuple[int, ...] | None
    """Row numbers, sorted; None: the whole shard."""
    write_id: str = ""
    """Write id of the label shard to replace; empty: there is none."""

    def of(self, piece: Piece) -> Sequence[int]:
        """Return the rows of a piece."""
        if self.rows is None:
            return range(piece.first, piece.end)
        return self.rows[bisect_left(self.rows, piece.first) : bisect_left(self.rows, piece.end)]


@dataclass(frozen=True)
class Todo:
    """Rows of one shard that are not staged yet; without any, the shard only waits to be committed."""

    shard: Shard
    pieces: tuple[Piece, ...]
    """Pieces of the shard that are not staged, and parts of pieces of which other parts are."""
    retry: Retry | None = None
    staged: tuple[stage.Staged, ...] = field(default=(), compare=False)
    """Results of all other rows."""

    @property
    def num_rows(self) -> int:
        """Number of rows to label."""
        return sum(len(self.retry.of(piece)) if self.retry else piece.num_rows for piece in self.pieces)

    @property
    def keeps_rows(self) -> bool:
        """Whether the other rows of the label shard stay as they are."""
        return self.retry is not None and self.retry.rows is not None

    def without_failed(self, most: float) -> "Todo":
        """Return the work with the rows of staged results of which more than a share of `most` failed."""
        failed = {one for one in self.staged if one.name.errors > most * one.rows.num_rows}
        kept = tuple(one for one in self.staged if one not in failed)
        return replace(self, pieces=tuple(sorted((*self.pieces, *(one.rows for one in failed)))), staged=kept)


def compare(
    store: Store, shards: Sequence[Shard], fingerprint: str, *, file_id: str = "", stage_id: str = ""
) -> tuple[frozenset[str], tuple[Todo, ...]]:
    """Return the names of committed shards, and the work left on the others; arguments as of `commit.commit`.

    Raises:
        ChangedError: another file is in the place of a label shard.
    """
    done, foreign = commit.committed(store, shards, fingerprint, file_id=file_id)
    if reasons := [*foreign.values()]:
        more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
        raise ChangedError(reasons[0] + more, tuple(reasons))
    open_shards = [shard for shard in shards if shard.name not in done]
    staged = stage.listed(store, open_shards, stage_id or fingerprint)
    return done, tuple(_todo(shard, staged.get(shard.name, ())) for shard in open_shards)


def _todo(shard: Shard, staged: Sequence[stage.Staged]) -> Todo:
    tiles = [tile for piece in shard.pieces for tile in stage.tiles(piece, staged)]
    return Todo(shard, tuple(stage.unstaged(shard.pieces, staged)), staged=tuple(tiles))
