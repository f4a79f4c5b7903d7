"""Error rates of any number of rows in bounded memory, of all rows and by groups.

The rates cover all rows. Up to `MOST_UNITS` rows, intervals come from a bootstrap over rows. The errors of
more rows are added up in as many random bundles, which are drawn instead of rows. Bundles of independent rows have the
same expected variance of the rates; with 1,000 of them the width of an interval varies by about 2 %.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from raysp.evaluation.intervals import Bootstrap, Ints
from raysp.evaluation.recognition import TextMeasures
from raysp.evaluation.scores import Columns, Key, Scores, score
from raysp.pages.axes import Floats

MOST_UNITS = 1000
MOST_GROUPS = 200
"""Most values of a column with a group of their own."""
OTHERS = "other values"
_COUNTS = 8


class Errors:
    """Errors of rows, added up in bundles once there are more rows than units of the bootstrap."""

    def __init__(self) -> None:
        self.rows = 0
        self._sums: Ints = np.zeros((0, _COUNTS), np.int64)
        self._random = np.random.default_rng(0)

    def add(self, counts: Ints) -> None:
        """Add N rows, by their counts (N, 8) from `counts_of`."""
        self.rows += len(counts)
        room = MOST_UNITS - len(self._sums)
        self._sums = np.concatenate([self._sums, counts[:room]])
        rest = counts[room:]
        np.add.at(self._sums, self._random.integers(MOST_UNITS, size=len(rest)), rest)

    def scores(self) -> Scores:
        """Return the rates with their intervals."""
        measures = TextMeasures(self._sums[:, : _COUNTS // 2], self._sums[:, _COUNTS // 2 :])
        return replace(score(measures, len(self._sums), Columns(), Bootstrap()), rows=self.rows)


def counts_of(measures: TextMeasures) -> Ints:
    """Return the counts of words and characters of each row, (N, 8)."""
    return np.concatenate([measures.words_N4, measures.characters_N4], axis=1)


@dataclass
class Group:
    """Rows with the same value of a column."""

    rows: int = 0
    ok: int = 0
    seconds: float = 0.0
    errors: Errors = field(default_factory=Errors)


class Groups(dict[Key, Group]):
    """Rows by the values of a column. Values that come after `most` others are one group, with the key `OTHERS`."""

    def __init__(self, most: int = MOST_GROUPS) -> None:
        super().__init__()
        self.most = most

    def add(
        self, values: Sequence[Key], is_ok: npt.NDArray[np.bool_], seconds: Floats, compared: Ints, counts: Ints
    ) -> None:
        """Add rows.

        Args:
            values: value of each row.
            is_ok: whether each row has a label.
            seconds: seconds of audio; 0 if unknown.
            compared: indexes of the M rows whose texts are compared.
            counts: their errors, (M, 8).
        """
        numbers: dict[Key, int] = {}
        keys = (None if value != value else value for value in values)
        places = np.array([numbers.setdefault(key, len(numbers)) for key in keys], np.int64)
        num_rows, num_ok, num_seconds = (
            np.bincount(places, weights, minlength=len(numbers)) for weights in (None, is_ok, seconds)
        )
        for key, number in numbers.items():
            group = self.setdefault(key if key in self or len(self) < self.most else OTHERS, Group())
            group.rows += int(num_rows[number])
            group.ok += int(num_ok[number])
            group.seconds += float(num_seconds[number])
            group.errors.add(counts[places[compared] == number])
