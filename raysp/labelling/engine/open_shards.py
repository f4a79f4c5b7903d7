"""The driver's counts of uncommitted shards: rows without a result, errors, staged bytes.

Their size depends on work in flight, not on the number of rows.
"""

from collections import Counter
from collections.abc import Iterable, Mapping

from raysp.columns import OK
from raysp.corpus.shards import Piece, Shard
from raysp.labelling.engine.messages import LabelledPiece
from raysp.labelling.engine.run_progress import FIRST_SHARDS, Example, Progress
from raysp.sink.receipts import ShardReceipt
from raysp.sink.todo import Todo
from raysp.words import count

MAX_EXAMPLES = 5


class OpenShards:
    """Uncommitted shards, and their rows that are not staged.

    Args:
        todo: the plan.
        progress: updated with each message.
    """

    def __init__(self, todo: Iterable[Todo], progress: Progress) -> None:
        self.progress = progress
        self.todo = {one.shard.name: one for one in todo}
        self.rows_left = {name: one.num_rows for name, one in self.todo.items()}
        self.failed: dict[str, str] = {}
        self.staged_bytes = Counter(
            {name: sum(one.num_bytes for one in todo.staged) for name, todo in self.todo.items()}
        )
        """Bytes staged, by uncommitted shard."""
        self._so_far: dict[tuple[str, Piece], LabelledPiece] = {}
        """Last counts of the pieces that are not staged."""

    def submit(self, shard: str, part: Piece) -> None:
        """Record that workers were given a piece. Called from another thread."""
        if shard in self.rows_left:
            self.progress.in_flight.add((shard, part))

    def add(self, labelled: LabelledPiece) -> Shard | None:
        """Count a piece, in place of its earlier counts, and return its shard if that is now completely staged."""
        receipt = labelled.receipt
        place = receipt.shard, Piece(receipt.first, receipt.end)
        self.progress.add(labelled, self._so_far.pop(place, None), self._rows(*place))
        if not labelled.is_staged:
            self._so_far[place] = labelled
            return None
        self.progress.examples = [
            *self.progress.examples,
            *(Example(receipt.shard, *example) for example in labelled.examples),
        ][:MAX_EXAMPLES]
        self.progress.in_flight.discard(place)
        self.staged_bytes[receipt.shard] += receipt.counts.staged_bytes
        self.rows_left[receipt.shard] -= self._rows(*place)
        if self.rows_left[receipt.shard] or receipt.shard in self.failed:
            return None
        return self.todo[receipt.shard].shard

    def _rows(self, shard: str, part: Piece) -> int:
        retry = self.todo[shard].retry
        return len(retry.of(part)) if retry else part.num_rows

    def forget(self, shard: str, part: Piece) -> None:
        """Subtract the counts of a piece that is labelled again."""
        self.progress.in_flight.discard((shard, part))
        if before := self._so_far.pop((shard, part), None):
            self.progress.subtract(before, self._rows(shard, part))

    def fail(self, shard: str, reason: str) -> None:
        """Record that a shard is not committed."""
        self.failed[shard] = reason
        # Of a copy, since `submit` adds to the set in another thread.
        self.progress.in_flight -= {one for one in list(self.progress.in_flight) if one[0] == shard}

    def committed(self, receipt: ShardReceipt) -> None:
        """Record that a shard is committed."""
        shard, progress = receipt.shard, self.progress
        progress.shards_committed += 1
        progress.new_commits += 1
        progress.unchanged += receipt.existing
        if receipt.counts.by_status[OK] and not receipt.existing:
            progress.first_shards = sorted([*progress.first_shards, shard])[:FIRST_SHARDS]
        del self.rows_left[shard], self.staged_bytes[shard]

    def unfinished(self) -> Mapping[str, str]:
        """Return shards that failed, or have rows without a result, with the reasons."""
        lost = {
            name: f"no result for {count(rows, 'row')}; run again"
            for name, rows in self.rows_left.items()
            if rows and name not in self.failed
        }
        return {**self.failed, **lost}
