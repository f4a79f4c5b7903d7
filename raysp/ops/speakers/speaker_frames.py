"""Turns of speakers from the probabilities of a frame classifier, whose classes are speakers and may speak at once.

A classifier does not know the speakers of other windows: its first class may be different speakers in two windows. So
the classes of each window are matched with the classes of the previous window, over their shared frames.

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
    """Frame of the recording from which the window is used, up to `own` of the next window."""
    scores_TN: Floats


@dataclass(frozen=True)
class FrameDiarization:
    """Callable that returns the turns of a recording.

    Attributes:
        threshold: probability above which a speaker speaks.
        most: most speakers, in order of their amount of speech. None: one for each class.
        least_seconds: least speech of a speaker; the speaker with most speech is always kept.
        merge_seconds: turns of a speaker with a shorter pause between them are merged.
        frame_seconds: time between frames.
    """

    threshold: float
    most: int | None
    least_seconds: float
    merge_seconds: float
    frame_seconds: float

    def __call__(self, scores_TN: Floats) -> list[Turn]:
        """Return the turns of a recording by their starts; their scores are mean probabilities."""
        turns = [turn for number in self._kept(scores_TN) for turn in self._turns(number, scores_TN[:, number])]
        turns.sort(key=lambda turn: (turn.start, turn.speaker))
        speakers = numbered([turn.speaker for turn in turns]).tolist()
        return [turn._replace(speaker=speaker) for turn, speaker in zip(turns, speakers, strict=True)]

    def _kept(self, scores_TN: Floats) -> list[int]:
        """Return the classes that count as speakers, the class with most speech first."""
        seconds_N = (scores_TN > self.threshold).sum(0) * self.frame_seconds
        by_speech = np.argsort(-seconds_N, kind="stable")[: self.most].tolist()
        return [n for place, n in enumerate(by_speech) if not place or seconds_N[n] >= self.least_seconds]

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
    """Return the probabilities of a recording from its windows in order, with the classes of the first window.

    Without shared frames of two windows, or without speech in these, the classes keep their order.
    """
    before: FrameWindow | None = None
    parts: list[Floats] = []
    last = windows[-1]
    ends = [*(window.own for window in windows[1:]), max(last.own, last.start + len(last.scores_TN))]
    for window, end in zip(windows, ends, strict=True):
        if before is not None:
            window = window._replace(scores_TN=window.scores_TN[:, _matched(before, window)])
        # Windows of a classifier with other frames than the step's may miss a frame at their ends.
        frames = np.arange(window.own, end) - window.start
        parts.append(window.scores_TN[frames.clip(0, len(window.scores_TN) - 1)])
        before = window
    return np.concatenate(parts)


def _matched(before: FrameWindow, window: FrameWindow) -> list[int]:
    """Return the class of `window` that continues each class of the window `before`.

    Classes are paired one to one, so that their scores differ least in the frames that both windows share.
    """
    from scipy.optimize import linear_sum_assignment

    past_TN = before.scores_TN[window.start - before.start :].astype(np.float64)
    past_TN = past_TN[: len(window.scores_TN)]
    here_TN = window.scores_TN[: len(past_TN)].astype(np.float64)
    squares_NN = ((past_TN[:, :, None] - here_TN[:, None]) ** 2).sum(0).round(DIGITS)
    changes_NN = 1 - np.eye(len(squares_NN))  # among equally good orders the unchanged one wins
    return [int(column) for column in linear_sum_assignment(squares_NN + 10.0 ** -(DIGITS + 2) * changes_NN)[1]]
