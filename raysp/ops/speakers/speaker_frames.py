"""Turns of speakers from the probabilities of a frame classifier, whose classes are speakers and may speak at once.

A classifier does not know the speakers of other windows: its first class is one speaker in one window and another one
in the next. So the classes of each window are matched with those of the window before it, over the frames that both
have.

Legend: T frames, N classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from raysp.ops.classifying import spans_above
from raysp.ops.speakers.speaker_clusters import DIGITS, numbered
from raysp.ops.speakers.speaker_turns import Turn

Floats = npt.NDArray[np.float32]


class FrameWindow(NamedTuple):
    """Probabilities of the classes in one window of a recording."""

    start: int
    """Frame of the recording with which the window begins."""
    own: int
    """Frame of the recording from which on the window is used, up to the own frame of the next one."""
    scores_TN: Floats


@dataclass(frozen=True)
class FrameDiarization:
    """Callable that returns the turns of a recording.

    Attributes:
        threshold: probability above which a speaker speaks.
        most: most speakers; those with the most speech are kept. None: one for each class.
        least_seconds: speech of a speaker, but for the one who speaks most; those with less are left out.
        merge_seconds: turns of a speaker with a shorter pause between them are one.
        frame_seconds: time between frames.
    """

    threshold: float
    most: int | None
    least_seconds: float
    merge_seconds: float
    frame_seconds: float

    def __call__(self, scores_TN: Floats) -> list[Turn]:
        """Return the turns of a recording by their starts; their scores are mean probabilities."""
        found = [turn for number in self._kept(scores_TN) for turn in self._turns(number, scores_TN[:, number])]
        found.sort(key=lambda one: (one.start, one.speaker))
        speakers = numbered([one.speaker for one in found]).tolist()
        return [turn._replace(speaker=speaker) for turn, speaker in zip(found, speakers, strict=True)]

    def _kept(self, scores_TN: Floats) -> list[int]:
        """Return the classes that count as speakers, the one with the most speech first."""
        seconds_N = (scores_TN > self.threshold).sum(0) * self.frame_seconds
        by_speech = np.argsort(-seconds_N, kind="stable")[: self.most].tolist()
        return [one for place, one in enumerate(by_speech) if not place or seconds_N[one] >= self.least_seconds]

    def _turns(self, number: int, scores_T: Floats) -> list[Turn]:
        spans = spans_above(
            scores_T,
            self.threshold,
            self.threshold,
            frame_seconds=self.frame_seconds,
            merge_seconds=self.merge_seconds,
        )
        return [
            Turn(number, first * self.frame_seconds, end * self.frame_seconds, float(scores_T[first:end].mean()))
            for first, end in spans
        ]


def stitched(windows: Sequence[FrameWindow]) -> Floats:
    """Return the probabilities of a recording from those of its windows, which are in order.

    The classes are those of the first window. Without frames that two windows share, or without speech in these, the
    classes keep their order.
    """
    before: FrameWindow | None = None
    parts: list[Floats] = []
    ends = [*(one.own for one in windows[1:]), max(windows[-1].own, windows[-1].start + len(windows[-1].scores_TN))]
    for window, end in zip(windows, ends, strict=True):
        if before is not None:
            window = window._replace(scores_TN=window.scores_TN[:, _matched(before, window)])
        # Windows of a classifier with other frames than the step's may miss a frame at their ends.
        frames = np.arange(window.own, end) - window.start
        parts.append(window.scores_TN[frames.clip(0, len(window.scores_TN) - 1)])
        before = window
    return np.concatenate(parts)


def _matched(before: FrameWindow, window: FrameWindow) -> list[int]:
    """Return for each class of the window before the class of a window that differs least from it."""
    from scipy.optimize import linear_sum_assignment

    past_TN = before.scores_TN[window.start - before.start :].astype(np.float64)
    past_TN = past_TN[: len(window.scores_TN)]
    here_TN = window.scores_TN[: len(past_TN)].astype(np.float64)
    squares_NN = ((past_TN[:, :, None] - here_TN[:, None]) ** 2).sum(0).round(DIGITS)
    changes_NN = 1 - np.eye(len(squares_NN))  # of equally good orders the one that stays
    return [int(one) for one in linear_sum_assignment(squares_NN + 10.0 ** -(DIGITS + 2) * changes_NN)[1]]
