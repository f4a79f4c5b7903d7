"""Joining of the windows of a longer row to one label row, as if the model had seen the row at once."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol

import numpy as np
import pyarrow as pa

from raysp.columns import INNER_PREFIX, STATUS
from raysp.ops.adding import NO_COLUMNS, beside, chosen
from raysp.ops.late_steps import NO_ROW_STEPS, RowSteps
from raysp.ops.places import on_grid
from raysp.ops.rows import ERROR, OK, ROW_SCHEMA, RowStatus, row_statuses, statuses_table, with_labels
from raysp.text.times import timed_columns, within_recordings

RESULT = f"{INNER_PREFIX}result:"
"""Prefix of the texts of a row's earlier outputs, in the last of its windows."""


class JoinOp(Protocol):
    """Op that computes a row's columns from the staged columns of its windows."""

    schema: pa.Schema

    def join(self, windows: pa.Table) -> tuple[object, ...]:
        """Return the columns of `schema`, from the staged columns of the windows in order.

        Source columns that the output reads are in the table too, see `raysp.ops.late_steps.carried_values`,
        and texts of earlier outputs of the step, in columns named `RESULT` and their name.
        """
        ...


class Joining:
    """Op that joins windows to rows.

    A row is ok if all its windows are. Otherwise it has the outcome of its last window, which is that of decoding the
    whole row, or, if that is ok, of its first window that is not. Such a row has no labels, unless the samples before
    the damage of its recording are kept: then its last window is an error with staged columns.
    """

    def __init__(
        self,
        outputs: Sequence[JoinOp],
        sample_rate: int,
        added: pa.Schema = NO_COLUMNS,
        after: RowSteps = NO_ROW_STEPS,
    ) -> None:
        self.outputs = outputs
        self.timed = timed_of(outputs)
        self.after = after
        self.sample_rate = sample_rate
        self.added = added

    def __call__(self, windows: pa.Table) -> pa.Table:
        """Return one row for all windows of a row.

        Args:
            windows: `ROW_SCHEMA`, the added and the staged columns; sorted by row and window, each row complete.
        """
        numbers = windows.column("row").to_numpy()
        edges = [*np.flatnonzero(np.diff(numbers, prepend=-1)).tolist(), len(numbers)]
        statuses: list[RowStatus] = []
        labels: list[tuple[object, ...] | None] = []
        ends: list[int | None] = []
        for first, end in pairwise(edges):
            parts = windows.slice(first, end - first)
            row_status = row_outcome(row_statuses(parts), self.sample_rate)
            statuses.append(row_status)
            labels.append(self._label(parts) if self._is_labelled(parts) else None)
            ends.append(end - 1 if row_status.status == OK else None)
        table = beside(statuses_table(statuses), chosen(windows, self.added, ends))
        columns = (column for output in self.outputs for column in output.schema)
        return self.after(within_recordings(with_labels(table, columns, labels), self.timed))

    def _is_labelled(self, windows: pa.Table) -> bool:
        *before, last = windows.column(STATUS).to_pylist()
        if last == ERROR:
            own = {*ROW_SCHEMA.names, *self.added.names}
            staged = [name for name in windows.column_names if name not in own and not name.startswith(INNER_PREFIX)]
            last = OK if any(windows.column(name)[-1].is_valid for name in staged) else ERROR
        return all(status == OK for status in (*before, last))

    def _label(self, windows: pa.Table) -> tuple[object, ...]:
        return tuple(value for values in joined(self.outputs, windows) for value in values)


def is_ours(output: object) -> bool:
    """Return whether an output is one of raysp, not of a user."""
    return type(output).__module__.startswith("raysp.")


def timed_of(outputs: Sequence[JoinOp]) -> list[str]:
    """Return the names of the columns with times of raysp's own outputs."""
    return [name for output in outputs if is_ours(output) for name in timed_columns(output.schema)]


def row_outcome(windows: Sequence[RowStatus], sample_rate: int) -> RowStatus:
    """Return the outcome of a row: of its last window, or, if that is ok, of its first window that is not."""
    row_status = next((one for one in (windows[-1], *windows) if one.status != OK), windows[-1])
    given = [one.seconds for one in windows if one.seconds is not None]
    # Rounded, so that the sum equals the duration of a single window to the last bit.
    row_status.seconds = on_grid(sum(given), sample_rate) if len(given) == len(windows) else None
    row_status.window, row_status.windows = 0, 1
    return row_status


def joined(outputs: Sequence[JoinOp], windows: pa.Table) -> list[tuple[object, ...]]:
    """Return the columns of each output of one row; texts of earlier outputs are there for later ones."""
    found = []
    for output in outputs:
        found.append(output.join(windows))
        for field, value in zip(output.schema, found[-1], strict=True):
            if pa.types.is_string(field.type):
                texts = [*(None for _ in range(windows.num_rows - 1)), value]
                windows = windows.append_column(f"{RESULT}{field.name}", pa.array(texts, field.type))
    return found
