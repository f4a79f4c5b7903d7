"""Rows of one stretch of a shard as the labellings have them, and which of them may be taken."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from raysp.columns import OK, SKIPPED, STATUS
from raysp.labelling.finished.number_columns import numbers_in
from raysp.ops.rows import WITHDRAWN
from raysp.ops.step_ops import column_of

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
_OK = 2


@dataclass(frozen=True)
class Candidates:
    """Rows with consecutive numbers, from `first` on, in K labellings."""

    tables: Sequence[pa.Table]
    """Label rows of each labelling, of which some may be missing."""
    first: int
    num_rows: int

    @cached_property
    def places(self) -> Ints:
        """Place of each row in the table of each labelling, (K, rows); -1: it is missing."""
        places = np.full((len(self.tables), self.num_rows), -1, np.int64)
        for number, table in enumerate(self.tables):
            places[number, table.column("row").to_numpy() - self.first] = np.arange(table.num_rows)
        return places

    @cached_property
    def _ranks(self) -> Ints:
        ranks = np.full((len(self.tables), self.num_rows), -1, np.int64)
        for number, table in enumerate(self.tables):
            statuses, kinds = (table.column(name).to_pylist() for name in (STATUS, "error_type"))
            ranks[number, table.column("row").to_numpy() - self.first] = [*map(_rank, statuses, kinds)]
        return ranks

    @property
    def takes_part(self) -> Bools:
        """Whether a row has the best of its outcomes in a labelling, (K, rows)."""
        takes_part: Bools = self._ranks == self._ranks.max(0)
        return takes_part

    def column(self, number: int, name: str) -> "pa.ChunkedArray[Any]":
        """Return a column of a labelling, or a field of a struct, with null in the place of missing rows."""
        values, places = column_of(self.tables[number], name), self.places[number]
        return values if len(values) == self.num_rows else values.take(pa.array(places, mask=places < 0))

    def values(self, name: str) -> Floats:
        """Return the values of a column of numbers, (K, rows); -inf for nulls, NaN and missing rows."""
        values = np.stack([numbers_in(self.column(number, name)) for number in range(len(self.tables))])
        return np.where(np.isnan(values), -np.inf, values)

    def texts(self, name: str) -> list[list[str | None]]:
        """Return the texts of each labelling, None for rows that are not ok."""
        is_ok = self.takes_part & (self._ranks == _OK)
        return [
            pc.if_else(pa.array(is_ok[number]), self.column(number, name), None).to_pylist()
            for number in range(len(self.tables))
        ]

    def best(self, *criteria: Floats) -> Ints:
        """Return the first labelling of each row with the best outcome and the highest value of each criterion."""
        is_best = self.takes_part
        for criterion in criteria:
            values = np.where(is_best, criterion, -np.inf)
            is_best = is_best & (values == values.max(0))
        best: Ints = is_best.argmax(0)
        return best


def _rank(status: str | None, kind: str | None) -> int:
    """Return the rank of a row; a row withdrawn by `raysp forget` goes first, so that no labelling labels it again."""
    return 3 if kind == WITHDRAWN else _OK if status == OK else int(status == SKIPPED)
