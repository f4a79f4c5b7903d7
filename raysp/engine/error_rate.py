"""Whether too many rows fail, and which shards wait to be committed until that is known.

A run that stops leaves no error rows, so a shard with such rows is committed only when the run has seen enough rows to
be trusted; and one that by itself has too many, at the run's end. Rows that are done again say nothing here.
"""

from collections import Counter

from raysp.io.shards import Shard
from raysp.planning import Todo

MIN_ROWS = 200
"""Below so many rows a rate means nothing."""


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
        return self.is_known and self.num_errors > self.most * self.rows

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
