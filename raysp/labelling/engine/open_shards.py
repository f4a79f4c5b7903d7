"""The driver's counts of uncommitted shards: rows without a result, staged bytes, and the error rate of a run.

Their size depends on work in flight, not on the number of rows.

A run that stops for its error rate leaves no error rows. A shard with error rows is therefore committed only after
enough rows of the run are counted, and a shard whose own error rate is too high at the end of the run. When error rows
are retried, the other rows of their shards count too: a retry stops if too many rows of its shards fail, not if most
retried rows fail again.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping

from raysp.columns import OK
from raysp.corpus.shards import Piece, Shard
from raysp.labelling.engine.job import LabelledPiece, RowError
from raysp.labelling.engine.run_progress import FIRST_SHARDS, Progress
from raysp.sink.commit import Todo
from raysp.sink.receipts import ShardReceipt
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
        self.todo = {work.shard.name: work for work in todo}
        self.rows_left = {name: work.num_rows for name, work in self.todo.items()}
        self.failed: dict[str, str] = {}
        self.staged_bytes = Counter(
            {name: sum(file.num_bytes for file in work.staged) for name, work in self.todo.items()}
        )
        """Bytes staged, by uncommitted shard."""
        self.errors = Counter(
            {name: sum(file.name.errors for file in work.staged) for name, work in self.todo.items() if work.staged}
        )
        """Error rows staged, by uncommitted shard."""

    def submit(self, shard: str, part: Piece) -> None:
        """Record that workers have a piece. Called from another thread."""
        if shard in self.rows_left:
            self.progress.in_flight[shard, part] = None

    def add(self, labelled: LabelledPiece) -> Shard | None:
        """Count a piece, in place of its earlier counts, and return its shard if that is now completely staged."""
        shard = labelled.receipt.shard
        self.progress.add(labelled)
        if not labelled.is_staged:
            return None
        self.staged_bytes[shard] += labelled.receipt.counts.staged_bytes
        self.errors[shard] += sum(labelled.receipt.counts.errors.values())
        self.rows_left[shard] -= labelled.num_rows
        if self.rows_left[shard] or shard in self.failed:
            return None
        return self.todo[shard].shard

    def fail(self, shard: str, reason: str) -> None:
        """Record that a shard is not committed; its pieces in flight do not count any more."""
        self.failed[shard] = reason
        in_flight = self.progress.in_flight
        # Of a copy, since `submit` adds to it in another thread.
        for place in [place for place in list(in_flight) if place[0] == shard]:
            del in_flight[place]

    def committed(self, receipt: ShardReceipt) -> None:
        """Record that a shard is committed."""
        shard, progress = receipt.shard, self.progress
        progress.shards_committed += 1
        progress.new_commits += 1
        progress.unchanged += receipt.existing
        if receipt.counts.by_status[OK] and not receipt.existing:
            progress.first_shards = sorted([*progress.first_shards, shard])[:FIRST_SHARDS]
        del self.rows_left[shard], self.staged_bytes[shard], self.errors[shard]

    def show(self, examples: Iterable[RowError]) -> None:
        """Add error rows to the few that are shown, which have as many types as possible."""
        shown = [*self.progress.examples, *examples]
        kinds = [example.error_type for example in shown]
        firsts = sorted(range(len(shown)), key=lambda place: kinds[:place].count(kinds[place]))[:MAX_EXAMPLES]
        self.progress.examples = [shown[place] for place in sorted(firsts)]

    def unfinished(self) -> Mapping[str, str]:
        """Return shards that failed, or have rows without a result, with the reasons."""
        lost = {
            name: f"no result for {count(rows, 'row')}; run again"
            for name, rows in self.rows_left.items()
            if rows and name not in self.failed
        }
        return {**self.failed, **lost}


MIN_ROWS = 200
"""Number of rows from which the share of error rows itself is compared with the limit."""
FIRST_ROWS = 20
"""Number of rows from which a run stops if the lower bound of the share exceeds the limit."""
QUANTILE = 3.09
"""Quantile of the normal distribution for a one-sided confidence of 99.9 %: the bound is checked after every block."""


class ErrorRate:
    """Share of error rows, and the shards held back for it. The driver sets `rows` and `num_errors`.

    Args:
        most: largest share of rows that may fail.
    """

    def __init__(self, most: float) -> None:
        self.most = most
        self.rows = self.num_errors = 0
        self._waiting: list[Shard] = []
        """Shards held back until there are enough rows."""
        self._held: list[Shard] = []
        """Shards held back until the end, because too many of their own rows failed."""

    @property
    def has_enough_rows(self) -> bool:
        """Whether there are enough rows to compare the share with the limit."""
        return self.rows >= MIN_ROWS

    @property
    def is_exceeded(self) -> bool:
        """Whether too many rows failed."""
        if self.has_enough_rows:
            return self.num_errors > self.most * self.rows
        return self.rows >= FIRST_ROWS and lower_bound(self.num_errors, self.rows) > self.most

    def release(self, todo: Todo, failed: int) -> list[Shard]:
        """Accept a completely staged shard of which `failed` rows failed; return it if it may be committed at once."""
        if todo.keeps_rows or not failed:
            return [todo.shard]
        if failed > self.most * todo.shard.num_rows:
            self._held.append(todo.shard)
        else:
            self._waiting.append(todo.shard)
        return []

    def released(self, *, at_end: bool = False) -> list[Shard]:
        """Return the held-back shards that may be committed now; at the end of the run, all of them."""
        shards: list[Shard] = []
        if self.has_enough_rows or at_end:
            shards, self._waiting = self._waiting, []
        if at_end:
            shards, self._held = [*shards, *self._held], []
        return shards


def lower_bound(errors: int, rows: int) -> float:
    """Return the lower end of Wilson's interval for the share of error rows (E. B. Wilson, 1927, JASA 22, 209-212)."""
    share, square = errors / rows, QUANTILE**2
    spread = QUANTILE * math.sqrt(share * (1 - share) / rows + square / (4 * rows**2))
    return (share + square / (2 * rows) - spread) / (1 + square / rows)
