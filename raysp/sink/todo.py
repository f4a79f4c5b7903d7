"""Work left on a sink: pieces of shards that are not staged, and rows of label shards to label once more."""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

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
    """Pieces of one shard that are not staged yet; if empty, the shard only waits to be committed."""

    shard: Shard
    pieces: tuple[Piece, ...]
    retry: Retry | None = None
    staged_bytes: int = field(default=0, compare=False)
    """Bytes of the other pieces, which are staged."""

    @property
    def num_rows(self) -> int:
        """Number of rows to label."""
        return sum(len(self.retry.of(piece)) if self.retry else piece.num_rows for piece in self.pieces)

    @property
    def keeps_rows(self) -> bool:
        """Whether the other rows of the label shard stay as they are."""
        return self.retry is not None and self.retry.rows is not None


def compare(
    store: Store,
    shards: Sequence[Shard],
    fingerprint: str,
    *,
    file_id: str = "",
    stage_id: str = "",
) -> tuple[frozenset[str], tuple[Todo, ...]]:
    """Return the names of committed shards, and the work left on the others.

    Raises:
        ChangedError: another file is in the place of a label shard.
    """
    committed = commit.committed(store, shards, fingerprint, repair=False, file_id=file_id)
    if reasons := [*committed.foreign.values()]:
        more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
        raise ChangedError(reasons[0] + more, tuple(reasons))
    done = committed.done
    open_shards = [shard for shard in shards if shard.name not in done]
    blocks = stage.staged(store, open_shards, stage_id or fingerprint)
    return done, tuple(_todo(shard, blocks.get(shard.name, {})) for shard in open_shards)


def _todo(shard: Shard, blocks: Mapping[Piece, stage.Blocks]) -> Todo:
    """Return the work left on a shard, from its staged blocks."""
    pieces = stage.unstaged(shard, blocks)
    staged_bytes = sum(sum(found.values()) for piece, found in blocks.items() if piece not in pieces)
    return Todo(shard, pieces, staged_bytes=staged_bytes)
