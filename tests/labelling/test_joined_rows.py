"""Windows of a row are joined when all of them are there, and of one version of its recording."""

import re

import pyarrow as pa
import pytest

from raysp import RunError
from raysp.labelling.assembly import join_windows


def windows_of(*lengths: int, first: int = 4, versions: tuple[str, ...] = ()) -> pa.Table:
    """Make labelled windows of rows of so many windows each."""
    places = [(row, window, count) for row, count in enumerate(lengths, first) for window in range(count)]
    return pa.table(
        {
            "row": [row for row, _, _ in places],
            "text": [f"{row}.{window}" for row, window, _ in places],
            "window": pa.array([window for _, window, _ in places], pa.int32()),
            "windows": pa.array([count if window == count - 1 else None for _, window, count in places], pa.int32()),
            "recording": [f"{row}.wav" for row, _, _ in places],
            "version": list(versions) or ["1600:5"] * len(places),
        }
    )


def join(windows: pa.Table) -> pa.Table:
    """Join windows to rows whose text shows what was joined."""
    rows = windows.group_by("row", use_threads=False).aggregate([("text", "list")])
    return pa.table({"row": rows["row"], "text": ["+".join(texts) for texts in rows["text_list"].to_pylist()]})


@pytest.mark.parametrize("chosen", [[0, 2], [0, 1], [1, 2], [0, 1, 1, 2], [0, 1, 2, 2]])
def test_missing_and_duplicate_windows_are_a_bug(chosen):
    windows = windows_of(3, 1, 1).take([*chosen, 3, 4])
    with pytest.raises(RunError, match="row 4 lacks a window or has one twice; this is a bug in raysp: report it"):
        join_windows(windows, join)


def test_windows_of_several_versions_of_a_recording_are_refused():
    windows = windows_of(2, 2, versions=("1600:5", "1600:5", "1600:5", "1600:6"))
    expected = "row 5: its recording '5.wav' was replaced between its windows; run again: its rows are labelled again"
    with pytest.raises(RunError, match=re.escape(expected)):
        join_windows(windows, join)
    versions = ("1600:5", "1600:5", "1600:6", "1600:6")  # of several recordings, they may differ
    assert join_windows(windows_of(2, 2, versions=versions), join).num_rows == 2
