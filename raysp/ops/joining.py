"""Put the windows of a longer row together: one label row, as if the model had seen it at once."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol

import numpy as np
import pyarrow as pa

from raysp.ops.rows import CHANGED, OK, Fate, fates_of, fates_table


class JoinOp(Protocol):
    """Reads a row's columns out of what an output left of its windows."""

    schema: pa.Schema

    def join(self, windows: pa.Table) -> tuple[object, ...]:
        """Give the columns of `schema`, from the staged columns of the windows in their order."""
        ...


class Joining:
    """Join windows to rows.

    A row is ok when all its windows are. Otherwise it is what its last window says, for that is what decoding found of
    the whole row, or else what its first window at fault says; nothing else of it is kept.
    """

    def __init__(self, outputs: Sequence[JoinOp], sample_rate: int) -> None:
        self.outputs = outputs
        self.sample_rate = sample_rate

    def __call__(self, windows: pa.Table) -> pa.Table:
        """Give a row for each run of windows of one row.

        Args:
            windows: `ROW_SCHEMA` and the staged columns; sorted by row and window, each row complete.
        """
        numbers = windows.column("row").to_numpy()
        edges = [*np.flatnonzero(np.diff(numbers, prepend=-1)).tolist(), len(numbers)]
        fates: list[Fate] = []
        labels: list[tuple[object, ...] | None] = []
        for first, end in pairwise(edges):
            parts = windows.slice(first, end - first)
            fate = self._fate(fates_of(parts))
            fates.append(fate)
            labels.append(self._label(parts) if fate.status == OK else None)
        table = fates_table(fates)
        for place, field in enumerate(field for output in self.outputs for field in output.schema):
            values = [None if label is None else label[place] for label in labels]
            table = table.append_column(field, pa.array(values, field.type))
        return table

    def _fate(self, windows: Sequence[Fate]) -> Fate:
        fate = next((one for one in (windows[-1], *windows) if one.status != OK), windows[-1])
        given = [one.seconds for one in windows if one.seconds is not None]
        # A whole number of samples, so that the sum is what one window would say, to the last bit.
        whole = round(sum(given) * self.sample_rate) / self.sample_rate
        fate.seconds = whole if len(given) == len(windows) else None
        fate.window, fate.windows = 0, 1
        if len({one.version for one in windows}) > 1:
            fate.version = CHANGED
        return fate

    def _label(self, windows: pa.Table) -> tuple[object, ...]:
        return tuple(value for output in self.outputs for value in output.join(windows))
