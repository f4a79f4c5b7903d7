"""Turns of the speakers of a recording, from its regions of speech and vectors of short windows.

Legend: N windows, E width of a vector, K speakers.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from raysp.ops.speakers.speaker_clusters import DIGITS, Floats, Labels, cut, means, merges, numbered, unit
from raysp.ops.speakers.speaker_space import SpeakerSpace

FARTHEST = 2.0
"""Largest possible distance of two vectors."""
MOST_SPEAKERS = 20
"""Default of the most speakers of a recording."""
SAME = 0.0
"""Log-likelihood ratio from which two clusters are one speaker."""
Region = tuple[float, float]
"""Start and end in seconds."""


class Turn(NamedTuple):
    """Speech of one speaker, from `start` to `end` in seconds."""

    speaker: int
    start: float
    end: float
    score: float
    """Mean cosine of its windows to the mean vector of the speaker."""


@dataclass(frozen=True)
class Diarization:
    """Callable that returns the turns of a recording.

    Attributes:
        threshold: mean distance of cosines above which clusters are different speakers; None: the space decides.
        bounds: fewest and most speakers.
        least_seconds: least speech of a cluster that counts as a speaker.
        merge_seconds: turns of a speaker with a shorter pause between them are merged.
        step_seconds: time between the middles of windows.
        window_seconds: length of a window.
        change_seconds: seconds of speech, times the difference of cosines in it, that a change of speaker must gain.
        space: space in which vectors are compared; None: compared directly.
    """

    threshold: float | None
    bounds: tuple[int, int | None]
    least_seconds: float
    merge_seconds: float
    step_seconds: float
    window_seconds: float
    change_seconds: float
    space: SpeakerSpace | None = None

    def __call__(self, regions: Sequence[Region], middles_N: Floats, vectors_NE: Floats) -> list[Turn]:
        """Return the turns of a recording in order; none without speech or without windows.

        Args:
            regions: regions of speech, in order.
            middles_N: middles of the windows in seconds, in order.
            vectors_NE: their vectors.
        """
        is_speech = within(middles_N, regions, self.step_seconds / 2)
        if not len(middles_N) or not regions:
            return []
        if not is_speech.any():
            is_speech[:] = True
        labels_N, scores_N = self._labels(vectors_NE[is_speech])
        middles_N = middles_N[is_speech]
        pieces = [piece for region in regions for piece in _pieces(region, middles_N, labels_N, scores_N)]
        return self._joined(pieces)

    def _labels(self, vectors_NE: Floats) -> tuple[Labels, Floats]:
        """Return the speaker of each window, and its cosine to the mean of the speaker."""
        places_ND = vectors_NE if self.space is None else self.space(vectors_NE)
        compared_ND = self._compared(places_ND)
        if self.space is None or self.threshold is not None:
            labels_N = self._path(compared_ND, merges(compared_ND), self.bounds)
        else:
            labels_N = self._apart(self.space, places_ND, compared_ND)
        if not labels_N.any():  # subtracting the mean over windows leaves nothing of a single speaker
            compared_ND = unit(places_ND)
        cosines_NK = compared_ND @ means(compared_ND, labels_N, range(labels_N.max() + 1)).T
        return labels_N, cosines_NK[np.arange(len(labels_N)), labels_N]

    def _compared(self, places_ND: Floats) -> Floats:
        """Return places at length 1, without their mean over the recording unless it may have one speaker."""
        places_ND = unit(places_ND)
        has_several = self.bounds[0] > 1 or (self.space is not None and self.threshold is None)
        return unit(places_ND - places_ND.mean(0)) if has_several else places_ND

    def _path(self, compared_ND: Floats, merged: Floats, bounds: tuple[int, int | None]) -> Labels:
        """Return the speaker of each window: clusters, then the best paths between their means."""
        least = max(1, round(self.least_seconds / self.step_seconds))
        threshold = FARTHEST if self.threshold is None else self.threshold
        labels_N = cut(compared_ND, merged, threshold=threshold, bounds=bounds, least=least)
        for _ in range(2):
            cosines_NK = (compared_ND @ means(compared_ND, labels_N, range(labels_N.max() + 1)).T).round(DIGITS)
            labels_N = numbered(_best_path(cosines_NK, self.change_seconds / self.step_seconds).tolist())
        return labels_N

    def _apart(self, space: SpeakerSpace, places_ND: Floats, compared_ND: Floats) -> Labels:
        """Return the speaker of each window, adding speakers as long as the space separates all of them."""
        merged = merges(compared_ND)
        low, high = self.bounds
        labels_N = self._path(compared_ND, merged, (low, low))
        for number in range(low + 1, min(high or MOST_SPEAKERS, len(compared_ND)) + 1):
            more_N = self._path(compared_ND, merged, (number, number))
            if more_N.max() + 1 == number:
                if space.nearest(places_ND, more_N, self.step_seconds / self.window_seconds) >= SAME:
                    break
                labels_N = more_N
        return labels_N

    def _joined(self, pieces: Sequence[Turn]) -> list[Turn]:
        """Return the turns of pieces in order, with the speakers numbered by their first speech."""
        speakers = numbered([piece.speaker for piece in pieces]).tolist()
        turns: list[Turn] = []
        weights: list[float] = []
        for piece, speaker in zip(pieces, speakers, strict=True):
            piece, seconds = piece._replace(speaker=speaker), piece.end - piece.start
            if turns and turns[-1].speaker == speaker and piece.start - turns[-1].end < self.merge_seconds:
                score = (turns[-1].score * weights[-1] + piece.score * seconds) / (weights[-1] + seconds)
                turns[-1] = turns[-1]._replace(end=piece.end, score=score)
                weights[-1] += seconds
            else:
                turns.append(piece)
                weights.append(seconds)
        return turns


def within(places_N: Floats | npt.NDArray[np.int64], spans: Sequence[Region], margin: float) -> npt.NDArray[np.bool_]:
    """Return a mask (N,) of the places in a span or within `margin` of one; all in one unit."""
    starts, ends = (np.array([span[place] for span in spans]) for place in (0, 1))
    before = np.searchsorted(starts - margin, places_N, side="right") - 1
    return np.asarray((before >= 0) & (places_N <= np.append(ends, -np.inf)[before] + margin))


def _best_path(cosines_NK: Floats, change_cost: float) -> Labels:
    """Return the speaker of each window on the path with the highest sum of cosines less costs of changes."""
    total_K = cosines_NK[0]
    back_NK = np.zeros(cosines_NK.shape, np.int64)
    stay_K = np.arange(len(total_K))
    for place in range(1, len(cosines_NK)):
        best = int(total_K.argmax())
        # Not `>=`: at equal sums the speaker stays.
        changes_K = total_K[best] - change_cost > total_K
        back_NK[place] = np.where(changes_K, best, stay_K)
        total_K = np.maximum(total_K, total_K[best] - change_cost) + cosines_NK[place]
    path = [int(total_K.argmax())]
    for place in range(len(cosines_NK) - 1, 0, -1):
        path.append(int(back_NK[place, path[-1]]))
    return np.array(path[::-1])


def _pieces(region: Region, middles_N: Floats, labels_N: Labels, scores_N: Floats) -> Iterator[Turn]:
    """Yield the pieces of a region of speech; the speaker changes halfway between windows of different speakers."""
    start, end = region
    first, last = np.searchsorted(middles_N, (start, end))
    if first == last:
        first = int(np.abs(middles_N - (start + end) / 2).argmin())
        last = first + 1
    edges = [int(first), *(int(first) + 1 + np.flatnonzero(np.diff(labels_N[first:last]))).tolist(), int(last)]
    times = [start, *((middles_N[edge - 1] + middles_N[edge]) / 2 for edge in edges[1:-1]), end]
    for (begin, stop), (first_time, last_time) in zip(pairwise(edges), pairwise(times), strict=True):
        score = float(scores_N[begin:stop].mean())
        yield Turn(int(labels_N[begin]), float(first_time), float(last_time), score)
