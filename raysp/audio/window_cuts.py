"""Windows: the parts of a recording that a model processes at once, and the frames that each window owns.

Frame k of a recording starts at sample `k * frame_stride`, and windows start at multiples of it, so a window's frames
are frames of the recording. Neighbouring windows overlap. Each shared frame is taken from the window in which it is
farther from an edge, so the joint is in the middle of the overlap. All windows except the last have the same length.
The last one holds at least one frame that its neighbour lacks, and the samples behind the last whole frame. It is
longer than the overlap, and less than a stride longer than the others.

Texts of a decoder cannot be joined by frames. For them, windows do not overlap: each ends at the quietest point of its
last `overlap_seconds`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np

from raysp.audio.waveforms import Samples, concatenate

QUIET_SECONDS = 0.2
"""Length of the stretches whose loudness is compared: longer than the closure of a stop, shorter than a pause."""


@dataclass(frozen=True)
class Windowing:
    """Parameters for cutting recordings into windows, in samples and frames."""

    sample_rate: int
    frame_stride: int
    """Samples from one frame to the next."""
    min_samples: int
    """Minimum samples for one frame."""
    window_samples: int
    step_frames: int
    """Frames from one window's start to the next one's. With `at_quiet_points`, the earliest end of a window."""
    at_quiet_points: bool = False
    """Whether windows do not overlap and end at quiet points."""

    @classmethod
    def of(
        cls,
        *,
        sample_rate: int,
        frame_stride: int,
        min_samples: int,
        window_seconds: float,
        overlap_seconds: float,
        at_quiet_points: bool = False,
        group_frames: int = 1,
    ) -> Self:
        """Convert seconds to whole samples and strides. Windows overlap by at least `overlap_seconds`.

        Windows start at multiples of `group_frames`, the number of frames that some models merge internally.

        Windows always overlap by the difference of a frame's length and the stride, so that no frame is lost between
        two.

        Raises:
            ValueError: a window would be shorter than one frame.
        """
        window_samples = int(window_seconds * sample_rate)
        num_frames = (window_samples - min_samples) // frame_stride + 1
        if num_frames < 1:
            raise ValueError(
                f"window_seconds={window_seconds:g} is {window_samples} samples at {sample_rate} Hz; "
                f"the model needs at least {min_samples}"
            )
        step_frames = int((window_seconds - overlap_seconds) * sample_rate) // frame_stride
        step_frames = max(1, min(step_frames, num_frames))
        step_frames = max(step_frames - step_frames % group_frames, min(group_frames, num_frames))
        return cls(sample_rate, frame_stride, min_samples, window_samples, step_frames, at_quiet_points)

    @property
    def window_seconds(self) -> float:
        """Seconds of each window except the last."""
        return self.window_samples / self.sample_rate

    @property
    def step_samples(self) -> int:
        """Samples from one window's start to the next one's."""
        return self.step_frames * self.frame_stride

    @property
    def frame_seconds(self) -> float:
        """Seconds from one frame to the next."""
        return self.frame_stride / self.sample_rate

    @property
    def shared_frames(self) -> int:
        """Number of frames that a window shares with the next one."""
        return self.num_frames(self.window_samples) - self.step_frames

    def added_samples(self, num_samples: int) -> int:
        """Return the number of samples that a window, not the last one, adds to those of earlier windows."""
        return num_samples if self.at_quiet_points else self.step_samples

    def num_frames(self, num_samples: int) -> int:
        """Return the number of frames of a window."""
        return max(0, (num_samples - self.min_samples) // self.frame_stride + 1)

    def num_windows(self, num_samples: int) -> int:
        """Return the number of windows of a recording."""
        beyond = self.num_frames(num_samples) - self.num_frames(self.window_samples)
        return 1 + max(0, -(-beyond // self.step_frames))

    def owned_frames(self, window: int, num_samples: int, *, is_last: bool) -> tuple[int, int]:
        """Return the range of a window's frames whose results are taken from it.

        Args:
            window: index of the window in the recording, from 0.
            num_samples: length of the window in samples.
            is_last: whether it is the last window of the recording.

        Returns:
            The first frame, and the one after the last.
        """
        if self.at_quiet_points:
            return 0, self.num_frames(num_samples)
        joint = (self.shared_frames + 1) // 2
        first = joint if window else 0
        return first, self.num_frames(num_samples) if is_last else self.step_frames + joint


def cut_windows(chunks: Iterator[Samples], windowing: Windowing) -> Iterator[tuple[Samples, bool]]:
    """Cut a recording into windows while it is decoded. Yields (window, whether it is the last).

    Memory holds one window and one chunk. A yielded window keeps no other samples in memory.
    """
    if windowing.at_quiet_points:
        yield from _cut_at_quiet_points(chunks, windowing)
        return
    # One frame more than a window has: otherwise it could be the last.
    enough = windowing.num_frames(windowing.window_samples) * windowing.frame_stride + windowing.min_samples
    held = next(chunks)
    while True:
        start = 0
        while len(held) - start >= enough:
            yield held[start : start + windowing.window_samples].copy(), False
            start += windowing.step_samples
        held = held[start:].copy() if start else held
        following = next(chunks, None)
        if following is None:
            yield held, True
            return
        held = concatenate([held, following])


def _cut_at_quiet_points(chunks: Iterator[Samples], windowing: Windowing) -> Iterator[tuple[Samples, bool]]:
    held = next(chunks)
    while True:
        start = 0
        while len(held) - start > windowing.window_samples:
            end = start + _quiet_point(held[start : start + windowing.window_samples], windowing)
            yield held[start:end].copy(), False
            start = end
        held = held[start:].copy() if start else held
        following = next(chunks, None)
        if following is None:
            yield held, True
            return
        held = concatenate([held, following])


def _quiet_point(window: Samples, windowing: Windowing) -> int:
    """Return the end of a window in samples, a multiple of the stride: the middle of its quietest `QUIET_SECONDS`.

    The rest of the recording then holds at least one frame.
    """
    stride = windowing.frame_stride
    first = min(windowing.step_frames, max(1, (len(window) - windowing.min_samples) // stride))
    latest = max(first, (len(window) - windowing.min_samples) // stride)
    half = max(1, round(QUIET_SECONDS / 2 * windowing.sample_rate / stride))
    before = max(0, first - half)
    # In float64: squares of int16 samples overflow, and differences of long sums lose digits in float32.
    strides = window[before * stride : (len(window) // stride) * stride].astype(np.float64).reshape(-1, stride)
    energy = np.concatenate([[0.0], np.cumsum((strides**2).sum(1))])
    points = np.arange(first, latest + 1)
    begins, ends = np.maximum(points - half - before, 0), np.minimum(points + half - before, len(strides))
    loudness = (energy[ends] - energy[begins]) / np.maximum(ends - begins, 1)
    return int(points[loudness.argmin()]) * stride
