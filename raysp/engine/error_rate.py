"""Whether too many rows fail, and which shards wait to be committed until that is known.

A run that stops leaves no error rows, so a shard with such rows is committed only when the run has seen enough rows to
be trusted; and one that by itself has too many, at the run's end. Of a shard whose error rows are retried, its other
rows count as well: so a retry stops where too much of its shards fails, not where most of what failed before does.
"""

import math
from collections import Counter

from raysp.corpus.shards import Shard
from raysp.sink.todo import Todo

MIN_ROWS = 200
"""From so many rows on the share of error rows is taken as it is."""
FIRST_ROWS = 20
"""From so many rows on a run stops where the share is too high beyond doubt: its lower bound exceeds the limit."""
QUANTILE = 3.09
"""Of the normal distribution for a one-sided confidence of 99.9 %: the bound is looked at after every block."""


class ErrorRate:
    """Count rows and error rows, and hold shards back.

    Args:
        most: the largest share of rows that may fail.
    """

    def __init__(self, most: float) -> None:
        self.most = most
        self.rows = 0
        self.errors: Counter[str] = Counter()
        """By shard, while it is not released."""
        self.num_errors = 0
        self._waiting: list[Shard] = []
        """Until there are enough rows."""
        self._held: list[Shard] = []
        """Until the end: too many of their own rows failed."""

    @property
    def is_known(self) -> bool:
        """Whether there are enough rows to judge."""
        return self.rows >= MIN_ROWS

    @property
    def is_exceeded(self) -> bool:
        """Whether too many rows failed."""
        if self.is_known:
            return self.num_errors > self.most * self.rows
        return self.rows >= FIRST_ROWS and lower_bound(self.num_errors, self.rows) > self.most

    def add(self, shard: str, rows: int, errors: int) -> None:
        """Count rows of a shard, or take them back."""
        self.rows += rows
        self.num_errors += errors
        if errors:
            self.errors[shard] += errors

    def release(self, todo: Todo) -> list[Shard]:
        """Take a shard that is staged whole; return it if it may be committed at once."""
        failed = self.errors.pop(todo.shard.name, 0)
        is_clean = not failed and todo.pieces == todo.shard.pieces
        if todo.retry is not None or is_clean:
            return [todo.shard]
        if failed > self.most * todo.num_rows:
            self._held.append(todo.shard)
        else:
            self._waiting.append(todo.shard)
        return []

    def released(self, *, at_end: bool = False) -> list[Shard]:
        """Return the shards held back that may be committed by now; at the run's end all of them."""
        found: list[Shard] = []
        if self.is_known or at_end:
            found, self._waiting = self._waiting, []
        if at_end:
            found, self._held = [*found, *self._held], []
        return found


def lower_bound(errors: int, rows: int) -> float:
    """Return the lower end of Wilson's interval for the share of error rows (E. B. Wilson, 1927, JASA 22, 209-212)."""
    share, square = errors / rows, QUANTILE**2
    spread = QUANTILE * math.sqrt(share * (1 - share) / rows + square / (4 * rows**2))
    return (share + square / (2 * rows) - spread) / (1 + square / rows)
