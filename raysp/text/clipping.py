"""Division of long recordings into clips at pauses between words."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from raysp.text.formats.safe_values import in_order, with_times
from raysp.text.times import Span

PAD_SECONDS = 0.25
"""Longest silence before the first word of a clip and after its last one."""
LONG_PAUSE_SECONDS = 2.0
"""Pause that always ends a clip."""
TOO_SHORT, TOO_LONG = "clip_too_short", "clip_too_long"


@dataclass(frozen=True)
class Clip:
    """A part of a recording with its words."""

    start: float
    """Seconds, with three digits, as `end`."""
    end: float
    text: str
    """Words separated by spaces."""
    score: float | None
    """Mean score of the words; None without finite scores."""

    @property
    def seconds(self) -> float:
        """Duration in seconds."""
        return round(self.end - self.start, 3)


def cut_clips(
    words: Iterable[Span], seconds: float, *, min_seconds: float, max_seconds: float
) -> tuple[list[Clip], Counter[str]]:
    """Return the clips of a recording in order, without overlaps, and the number of those left out by reason.

    A clip begins and ends in the middle of a pause, at most `PAD_SECONDS` from its words. Where the words of a stretch
    do not fit into one clip, it ends at the widest pause after half of `max_seconds`. A long pause always ends a clip.

    Args:
        words: words, or regions of speech, with their times in seconds; words without times belong to the one before.
        seconds: duration of the recording.
        min_seconds: shorter clips are left out.
        max_seconds: longer words are left out.
    """
    placed = _Placed(words, seconds)
    clips: list[Clip] = []
    left_out: Counter[str] = Counter()
    for first, end in placed.clips(min_seconds, max_seconds):
        clip = placed.clip(first, end)
        if clip.seconds > max_seconds or clip.seconds < min_seconds:
            left_out[TOO_LONG if clip.seconds > max_seconds else TOO_SHORT] += 1
        elif clip.end > clip.start:
            clips.append(clip)
    return clips, left_out


def whole_clip(text: str, seconds: float, *, min_seconds: float, max_seconds: float) -> tuple[list[Clip], Counter[str]]:
    """Return the clip of a whole recording, whose text has no times to cut it by; arguments as those of `cut_clips`."""
    clip = Clip(0.0, round(seconds, 3), text, None)
    if min_seconds <= clip.seconds <= max_seconds:
        return [clip], Counter()
    return [], Counter({TOO_LONG if clip.seconds > max_seconds else TOO_SHORT: 1})


class _Placed:
    """Words of a recording with the places at which clips may begin and end."""

    def __init__(self, words: Iterable[Span], seconds: float) -> None:
        self.words = [
            word._replace(end=min(word.end, seconds)) for word in in_order(with_times(words)) if word.start < seconds
        ]
        self.ends = list(accumulate((word.end for word in self.words), max))
        self.lefts = [self._left(place) for place in range(len(self.words))]
        self.rights = [self._right(place, seconds) for place in range(len(self.words))]

    def _middle(self, place: int) -> float:
        """Return the middle of the pause before a word."""
        return (self.ends[place - 1] + self.words[place].start) / 2

    def _left(self, place: int) -> float:
        return max(0.0, self.words[place].start - PAD_SECONDS, self._middle(place) if place else 0.0)

    def _right(self, place: int, seconds: float) -> float:
        following = self._middle(place + 1) if place + 1 < len(self.words) else math.inf
        return min(seconds, self.ends[place] + PAD_SECONDS, following)

    def pause(self, place: int) -> float:
        """Return the seconds between a word and the next one; infinite after the last."""
        if place + 1 == len(self.words):
            return math.inf
        return self.words[place + 1].start - self.ends[place]

    def clips(self, min_seconds: float, max_seconds: float) -> Iterator[tuple[int, int]]:
        """Yield the first word of each clip, and the one behind its last."""
        first = 0
        while first < len(self.words):
            last = self._last(first, min_seconds, max_seconds)
            yield first, last + 1
            first = last + 1

    def _last(self, first: int, min_seconds: float, max_seconds: float) -> int:
        fitting: list[int] = []
        for place in range(first, len(self.words)):
            if round(self.rights[place] - self.lefts[first], 3) > max_seconds:
                break
            if self.pause(place) >= LONG_PAUSE_SECONDS:
                return place
            fitting.append(place)
        if not fitting:
            return first
        half = max(min_seconds, max_seconds / 2)
        late = [place for place in fitting if self.rights[place] - self.lefts[first] >= half]
        return max(late or fitting[-1:], key=lambda place: (self.pause(place), place))

    def clip(self, first: int, end: int) -> Clip:
        """Return the clip of some words."""
        words: Sequence[Span] = self.words[first:end]
        scores = [word.score for word in words if math.isfinite(word.score)]
        return Clip(
            start=round(self.lefts[first], 3),
            end=round(self.rights[end - 1], 3),
            text=" ".join(word.text for word in words),
            score=sum(scores) / len(scores) if scores else None,
        )
