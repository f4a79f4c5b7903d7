"""Error rate of a run, and the shards that are not committed until it is known.

A run that stops leaves no error rows. A shard with error rows is therefore committed only after enough rows of the run
are counted, and a shard whose own error rate is too high at the end of the run. When error rows are retried, the other
rows of their shards count too: a retry stops if too many rows of its shards fail, not if most retried rows fail again.
"""

import math
from collections import Counter

from raysp.corpus.shards import Shard
from raysp.sink.todo import Todo

MIN_ROWS = 200
"""Number of rows from which the share of error rows itself is compared with the limit."""
FIRST_ROWS = 20
"""Number of rows from which a run stops if the lower bound of the share exceeds the limit."""
QUANTILE = 3.09
"""Quantile of the normal distribution for a one-sided confidence of 99.9 %: the bound is checked after every block."""


class ErrorRate:
    """Counts of rows and error rows, and the shards held back.

    Args:
        most: largest share of rows that may fail.
    """

    def __init__(self, most: float) -> None:
        self.most = most
        self.rows = 0
        self.errors: Counter[str] = Counter()
        """Error rows by shard, until it is released."""
        self.num_errors = 0
        self._waiting: list[Shard] = []
        """Shards held back until there are enough rows."""
        self._held: list[Shard] = []
        """Shards held back until the end, because too many of their own rows failed."""

    @property
    def is_known(self) -> bool:
        """Whether there are enough rows to compare the share with the limit."""
        return self.rows >= MIN_ROWS

    @property
    def is_exceeded(self) -> bool:
        """Whether too many rows failed."""
        if self.is_known:
            return self.num_errors > self.most * self.rows
        return self.rows >= FIRST_ROWS and lower_bound(self.num_errors, self.rows) > self.most

    def add(self, shard: str, rows: int, errors: int) -> None:
        """Add counts of rows of a shard; negative counts subtract."""
        self.rows += rows
        self.num_errors += errors
        if errors:
            self.errors[shard] += errors

    def release(self, todo: Todo) -> list[Shard]:
        """Accept a completely staged shard, and return it if it may be committed at once."""
        failed = self.errors.pop(todo.shard.name, 0)
        if todo.keeps_rows or not failed:
            return [todo.shard]
        if failed > self.most * todo.shard.num_rows:
            self._held.append(todo.shard)
        else:
            self._waiting.append(todo.shard)
        return []

    def released(self, *, at_end: bool = False) -> list[Shard]:
        """Return the held-back shards that may be committed now; at the end of the run, all of them."""
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
