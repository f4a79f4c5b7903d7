"""Samples of a longer recording before a window, for outputs whose values depend on more than one window."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from raysp.audio import Samples
from raysp.audio.waveforms import as_float32
from raysp.columns import INNER_PREFIX

PAST = f"{INNER_PREFIX}past"
"""Column of the pasts of windows; null for recordings that are one window."""
PAST_TYPE = pa.struct(
    [("samples", pa.list_(pa.float32())), ("start", pa.int64()), ("reached", pa.int64()), ("is_last", pa.bool_())]
)


@dataclass(frozen=True)
class Past:
    """Place of a window in its recording, in samples, and the samples before it."""

    samples: npt.NDArray[np.float32]
    """Samples up to the start of the window, some seconds before `reached` and later."""
    start: int
    """First sample of the window."""
    reached: int
    """End of the previous window."""
    is_last: bool


class Pasts:
    """The pasts of the windows of one recording, while they are cut.

    Args:
        num_samples: samples that are kept before the end of the previous window.
    """

    def __init__(self, num_samples: int) -> None:
        self._num_samples = num_samples
        self._samples: npt.NDArray[np.float32] = np.empty(0, np.float32)
        self._start = self._reached = 0

    def before(self, *, is_last: bool) -> Past:
        """Return the past of the next window."""
        return Past(self._samples, self._start, self._reached, is_last)

    def add(self, wave: Samples, num_added: int) -> None:
        """Add a window; the next one starts `num_added` samples after it."""
        samples = np.concatenate([self._samples, as_float32(wave[:num_added])])
        first = self._start - len(self._samples)
        self._reached, self._start = self._start + len(wave), self._start + num_added
        self._samples = samples[max(0, self._reached - self._num_samples - first) :].copy()
