"""Label rows of labelled windows: those of longer rows are joined."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pyarrow as pa

from raysp.columns import RECORDING_COLUMNS
from raysp.errors import RunError
from raysp.sink.sorting import in_order


def join_windows(windows: pa.Table, join: Callable[[pa.Table], pa.Table]) -> pa.Table:
    """Return one row for all windows of each row; only the columns that all rows have then.

    Args:
        windows: labelled windows, all of each row. Rows that are in order stay in order.
        join: joins the windows of longer rows, sorted and complete, to rows.

    Raises:
        RunError: windows of a row are missing or duplicate, or are of several versions of its recording.
    """
    is_whole = np.asarray(windows.column("windows").to_numpy() == 1)  # null becomes NaN
    if is_whole.all():
        return windows
    parts = windows.filter(~is_whole).sort_by([("row", "ascending"), ("window", "ascending")])
    _check(parts)
    rows = join(parts)
    whole = windows.filter(is_whole).select(rows.column_names)
    return in_order([whole, rows]) if whole.num_rows else rows


def _check(windows: pa.Table) -> None:
    row, window = (windows.column(name).to_numpy() for name in ("row", "window"))
    # Null, which numpy shows as NaN, on all but the last window of a row; 0 from here on.
    num_windows = np.nan_to_num(windows.column("windows").to_numpy()).astype(int)
    ends = np.append(row[1:] != row[:-1], True)
    starts = np.insert(ends[:-1], 0, True)
    expected = np.where(starts, 0, np.insert(window[:-1] + 1, 0, 0))
    wrong = (window != expected) | (num_windows != np.where(ends, window + 1, 0))
    if wrong.any():
        raise RunError(f"row {row[wrong.argmax()]} lacks a window or has one twice; this is a bug in raysp: report it")
    recordings = zip(row.tolist(), *(windows.column(name).to_pylist() for name in RECORDING_COLUMNS), strict=True)
    for before, after in pairwise(recordings):
        if before[0] == after[0] and before[2] != after[2]:
            raise RunError(
                f"row {before[0]}: its recording {before[1]!r:.80} was replaced between its windows; run again: its "
                "rows are labelled again"
            )
