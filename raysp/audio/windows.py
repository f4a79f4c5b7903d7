"""Windows: what a model sees of a recording at once, and which frames of the recording each window answers for.

Frame k of a recording starts at sample `k * frame_stride`, and windows start at multiples of it, so a window's frames
are frames of the recording. Neighbours share frames; each is taken from the window in which it is farther from an edge,
so the joint lies in the middle of what they share. All windows but the last are equally long. The last holds at least
one frame that its neighbour lacks, and the samples behind the last whole frame: so it is longer than the overlap, and
less than a stride longer than the others.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np

from raysp.audio.decoding import Samples


@dataclass(frozen=True)
class Windowing:
    """How recordings are cut, in samples and frames."""

    sample_rate: int
    frame_stride: int
    """Samples from one frame to the next."""
    min_samples: int
    """Samples that one frame needs."""
    window_samples: int
    step_frames: int
    """From one window's start to the next one's."""

    @classmethod
    def of(
        cls, *, sample_rate: int, frame_stride: int, min_samples: int, window_seconds: float, overlap_seconds: float
    ) -> Self:
        """Turn seconds into whole samples and strides; windows overlap by at least `overlap_seconds`.

        They always overlap by as much as a frame is longer than a stride, so that no frame falls between two.

        Raises:
            ValueError: a window would not hold a frame.
        """
        window_samples = int(window_seconds * sample_rate)
        num_frames = (window_samples - min_samples) // frame_stride + 1
        if num_frames < 1:
            raise ValueError(
                f"window_seconds={window_seconds:g} is {window_samples} samples at {sample_rate} Hz; "
                f"the model needs {min_samples}"
            )
        step_frames = int((window_seconds - overlap_seconds) * sample_rate) // frame_stride
        return cls(sample_rate, frame_stride, min_samples, window_samples, max(1, min(step_frames, num_frames)))

    @property
    def window_seconds(self) -> float:
        """Seconds of a window that is not the last."""
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
        """Frames that a window shares with the next one."""
        return self.num_frames(self.window_samples) - self.step_frames

    def num_frames(self, num_samples: int) -> int:
        """Count the frames of a window."""
        return max(0, (num_samples - self.min_samples) // self.frame_stride + 1)

    def num_windows(self, num_samples: int) -> int:
        """Count the windows of a recording."""
        beyond = self.num_frames(num_samples) - self.num_frames(self.window_samples)
        return 1 + max(0, -(-beyond // self.step_frames))

    def owned_frames(self, window: int, num_samples: int, *, is_last: bool) -> tuple[int, int]:
        """Tell which of a window's own frames it answers for.

        Args:
            window: its number in the recording, from 0.
            num_samples: its length.
            is_last: whether it is the recording's last.

        Returns:
            The first of them, and the one behind the last.
        """
        joint = (self.shared_frames + 1) // 2
        first = joint if window else 0
        return first, self.num_frames(num_samples) if is_last else self.step_frames + joint


def cut_windows(chunks: Iterator[Samples], windowing: Windowing) -> Iterator[tuple[Samples, bool]]:
    """Cut a recording into windows while it is decoded: each window, and whether it is the last.

    Holds one window and one chunk; a window holds no samples but its own.
    """
    # One frame more than a window has, or it could be the last.
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
        held = np.concatenate([held, following])
