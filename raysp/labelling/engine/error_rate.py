"""The error rate of a run, and the shards that are committed only once it is known.

A run that stops for its error rate leaves no error rows. A shard with error rows is therefore committed only after
enough rows of the run are counted, and a shard whose own error rate is too high at the end of the run. When error rows
are retried, the other rows of their shards count too: a retry stops if too many rows of its shards fail, not if most
retried rows fail again.
"""

import math

from raysp.corpus.shards import Shard
from raysp.sink.commit import Todo

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
    def is_exceeded(self) -> bool:
        """Whether too many rows failed."""
        if self.rows >= MIN_ROWS:
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
        if self.rows >= MIN_ROWS or at_end:
            shards, self._waiting = self._waiting, []
        if at_end:
            shards, self._held = [*shards, *self._held], []
        return shards


def lower_bound(errors: int, rows: int) -> float:
    """Return the lower end of Wilson's interval for the share of error rows (E. B. Wilson, 1927, JASA 22, 209-212)."""
    share, square = errors / rows, QUANTILE**2
    spread = QUANTILE * math.sqrt(share * (1 - share) / rows + square / (4 * rows**2))
    return (share + square / (2 * rows) - spread) / (1 + square / rows)
