"""Places of windows in their recording where these are cut at pauses: a column of blocks and of staged windows.

Without the column windows cover a recording without gaps.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Self, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from raysp.columns import INNER_PREFIX

LEAST_SHARE = 0.01
"""Share of a sample from which a duration is not in whole samples; sums of windows are exact to a thousandth."""
WHOLE_SECONDS = 1.0
"""Longest recording that is one window where windows are cut at pauses: a pause of this length is not cut either. The
model of speech does not find all words that fill a recording: without this, 10 % of 750 spoken digits were lost."""
PLACE = f"{INNER_PREFIX}place"
"""Column of the places in recordings."""


@dataclass(frozen=True)
class Place:
    """Place of a window in a recording, and the probabilities of speech up to its end."""

    frame: int
    """Frame of the recording with which the window begins."""
    first: int
    """First frame of the window that it owns, counted from its own first one."""
    end: int
    """End of these frames."""
    probabilities: npt.NDArray[np.float32]
    """Probabilities of chunks after the end of the previous window; in the last window up to the recording's end."""
    offset: int
    """Samples from the end of the window before it to the first of these chunks."""
    num_samples: int
    """Samples of the recording from the end of the window before it."""

    @classmethod
    def of(cls, value: dict[str, Any]) -> Self:
        """Return a place from a value of the column."""
        return cls(**{**value, "probabilities": np.asarray(value["probabilities"], np.float32)})


_PLACE_TYPE = pa.struct(
    [
        ("frame", pa.int64()),
        ("first", pa.int32()),
        ("end", pa.int32()),
        ("probabilities", pa.list_(pa.float32())),
        ("offset", pa.int32()),
        ("num_samples", pa.int64()),
    ]
)


def with_places(block: pa.Table, places: Sequence[Place | None]) -> pa.Table:
    """Return a block with the column of places."""
    return block.append_column(PLACE, pa.array([None if one is None else vars(one) for one in places], _PLACE_TYPE))


def places_of(block: pa.Table) -> list[Place | None]:
    """Return the places of the windows of a block; None for windows without one."""
    if PLACE not in block.column_names:
        return [None] * block.num_rows
    values = cast("list[dict[str, Any] | None]", block.column(PLACE).to_pylist())
    return [None if one is None else Place.of(one) for one in values]


def staged_places(places: Sequence[Place | None]) -> pa.Table:
    """Return the column as it is staged: the frame of the recording that is the first one that a window owns."""
    frames = [None if one is None else one.frame + one.first for one in places]
    return pa.table({PLACE: pa.array(frames, pa.int64())})


@dataclass(frozen=True)
class Stretch:
    """Windows of a row that follow each other without a gap."""

    windows: pa.Table
    frame: int
    """Frame of the recording with which their frames begin."""


def stretches(windows: pa.Table, num_frames: Sequence[int]) -> Iterator[Stretch]:
    """Yield the stretches of a row; all of the row is one if its windows have no places.

    Args:
        windows: staged windows of the row in order.
        num_frames: number of frames that each of them owns.
    """
    if PLACE not in windows.column_names:
        yield Stretch(windows, 0)
        return
    frames = np.asarray(windows.column(PLACE).to_numpy(), np.int64)
    ends = frames + np.asarray(num_frames, np.int64)
    edges = [0, *(np.flatnonzero(frames[1:] != ends[:-1]) + 1).tolist(), len(frames)]
    for first, end in pairwise(edges):
        yield Stretch(windows.slice(first, end - first), int(frames[first]))


def seconds_of_row(num_samples: int, sample_rate: int, claimed: float) -> float:
    """Return the duration of a recording, to a sample of its own rate where its header has that.

    Resampling rounds the number of samples. A header whose duration differs by a whole sample or more is an estimate,
    or that of a damaged file.

    Args:
        num_samples: decoded samples.
        sample_rate: rate of these samples in Hz.
        claimed: duration by the header in seconds; 0 if unknown.
    """
    decoded = num_samples / sample_rate
    return on_grid(claimed, sample_rate) if abs(claimed - decoded) * sample_rate < 1 else decoded


def on_grid(seconds: float, sample_rate: int) -> float:
    """Return a duration that is free of the error of sums: in whole samples if it has some, else in nanoseconds."""
    whole = round(seconds * sample_rate) / sample_rate
    return whole if abs(whole - seconds) * sample_rate < LEAST_SHARE else round(seconds, 9)
