"""Numbers and values of any number of rows in bounded memory: random samples, and counts of the first values."""

from collections import Counter
from collections.abc import Iterable

import numpy as np

from raysp.pages.axes import Floats

MOST_SAMPLED = 50_000
MOST_VALUES = 1000


class Sample:
    """A uniform random sample of finite numbers; all of them if they are few.

    Each number is given a random one, and those with the smallest are kept.

    Args:
        most: numbers to keep.
    """

    def __init__(self, most: int = MOST_SAMPLED) -> None:
        self._most = most
        self._random = np.random.default_rng(0)
        self._drawn = np.empty(0)
        self.values: Floats = np.empty(0)
        self.seen = 0
        """Numbers that were added."""

    def add(self, values: Floats) -> None:
        """Add numbers, of which those that are not finite do not count."""
        values = values[np.isfinite(values)]
        self.seen += len(values)
        drawn = np.concatenate([self._drawn, self._random.random(len(values))])
        values = np.concatenate([self.values, values])
        if len(values) > self._most:
            kept = np.argpartition(drawn, self._most)[: self._most]
            drawn, values = drawn[kept], values[kept]
        self._drawn, self.values = drawn, values

    @property
    def note(self) -> str:
        """Text on the number of shown numbers and of all; empty if all are shown."""
        shown = len(self.values)
        return "" if shown == self.seen else f"a random sample of {shown:,} of {self.seen:,} rows"


class Values:
    """Counts of values; those that come after many others are counted together."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.others = 0
        """Rows with further values."""

    def add(self, values: Iterable[str]) -> None:
        """Add the values of rows."""
        for value, rows in Counter(values).items():
            if value in self.counts or len(self.counts) < MOST_VALUES:
                self.counts[value] += rows
            else:
                self.others += rows
