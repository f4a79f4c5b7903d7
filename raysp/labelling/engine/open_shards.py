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

    def submit(self, shard: str, part: Piece) -> None:
        """Record that workers were given a piece. Called from another thread."""
        if shard in self.rows_left:
            self.progress.in_flight[shard, part] = None

    def add(self, labelled: LabelledPiece) -> Shard | None:
        """Count a piece, in place of its earlier counts, and return its shard if that is now completely staged."""
        shard = labelled.receipt.shard
        self.progress.add(labelled)
        if not labelled.is_staged:
            return None
        self.progress.examples = [
            *self.progress.examples,
            *(Example(shard, *example) for example in labelled.examples),
        ][:MAX_EXAMPLES]
        self.staged_bytes[shard] += labelled.receipt.counts.staged_bytes
        self.rows_left[shard] -= labelled.num_rows
        if self.rows_left[shard] or shard in self.failed:
            return None
        return self.todo[shard].shard

    def fail(self, shard: str, reason: str) -> list[LabelledPiece]:
        """Record that a shard is not committed, and return its pieces in flight, which do not count any more."""
        self.failed[shard] = reason
        in_flight = self.progress.in_flight
        # Of a copy, since `submit` adds to it in another thread.
        pieces = [in_flight.pop(place) for place in list(in_flight) if place[0] == shard]
        return [piece for piece in pieces if piece]

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
