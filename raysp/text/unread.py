"""Speech of a recording that no word of its transcript covers."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Interval = tuple[float, float]

PAUSE_SECONDS = 1.0
"""Shorter pauses belong to the speech around them, as those between words do."""
BEFORE_SECONDS, AFTER_SECONDS = 0.25, 0.5
"""Seconds that a word covers beyond its times: CTC models write its last letter before its sound ends."""


class Unread(NamedTuple):
    """Speech without a word."""

    longest: float
    """Most seconds of speech between two neighbouring words, before the first or after the last word."""
    share: float
    """Share of all speech; 0 without speech."""


def unread(speech: Sequence[Interval], words: Sequence[Interval]) -> Unread:
    """Return the speech of a recording that no word covers.

    Args:
        speech: start and end of regions of speech, in order and disjoint.
        words: start and end of words, in any order.
    """
    if not speech:
        return Unread(0.0, 0.0)
    edges = _joined(np.array(speech, np.float64))
    lengths = edges[1::2] - edges[::2]
    ends_of = np.cumsum(lengths)
    # Seconds of speech before each edge; between two edges they are linear.
    before = np.stack([ends_of - lengths, ends_of], axis=1).ravel()
    spans = np.array(sorted(words), np.float64).reshape(-1, 2)
    starts = np.append(spans[:, 0] - BEFORE_SECONDS, np.inf)
    ends = np.maximum.accumulate(np.insert(spans[:, 1] + AFTER_SECONDS, 0, -np.inf))
    gaps = np.maximum(np.interp(starts, edges, before) - np.interp(ends, edges, before), 0)
    return Unread(float(gaps.max()), float(gaps.sum() / before[-1]) if before[-1] else 0.0)


def _joined(spans: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the edges of regions that are joined over short pauses."""
    is_pause = spans[1:, 0] - spans[:-1, 1] > PAUSE_SECONDS
    starts, ends = spans[np.insert(is_pause, 0, True), 0], spans[np.append(is_pause, True), 1]
    return np.stack([starts, ends], axis=1).ravel()
