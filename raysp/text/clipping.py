"""Division of long recordings into clips: at pauses, after sentences, and where the speaker changes."""

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Literal

from raysp.text.formats.safe_values import in_order, with_times
from raysp.text.times import Span, ends_sentence

TOO_SHORT, TOO_LONG, OVERLAP = "too_short", "too_long", "of_several_speakers"
"""Reasons for leaving out clips."""
By = Literal["words", "speech", "turns", "sentences"]
"""Parts of recordings by which they are cut."""
SEVERAL = "+"
"""Separator of the speakers of a region in which several speak at once."""


@dataclass(frozen=True)
class Rules:
    """Rules by which recordings are cut."""

    min_seconds: float
    """Shorter clips are left out."""
    max_seconds: float
    """Longer words or regions are left out."""
    max_pause: float = 2.0
    """Seconds of the shortest pause that always ends a clip."""
    padding: float = 0.25
    """Longest silence before the first word of a clip and after its last one, in seconds."""
    by: By | None = None
    """With "sentences" clips end after one if they can, with "turns" also at each change of the speaker."""


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
    speaker: str = ""
    """Speaker of all words; empty if there are several, or if it is not known."""

    @property
    def seconds(self) -> float:
        """Duration in seconds."""
        return round(self.end - self.start, 3)


def cut_clips(
    words: Iterable[Span], seconds: float, rules: Rules, turns: Iterable[Span] = ()
) -> tuple[list[Clip], Counter[str]]:
    """Return the clips of a recording in order, without overlaps, and the number of those left out by reason.

    A clip begins and ends in the middle of a pause, at most `padding` from its words. Where the words of a stretch do
    not fit into one clip, it ends at the widest pause after half of `max_seconds`, or after the last whole sentence
    that fits. A long pause always ends a clip.

    Args:
        words: words, or regions of speech, with their times in seconds; words without times belong to the one before.
        seconds: duration of the recording.
        rules: rules of the cuts.
        turns: turns of speakers; clips cut by turns also end where another speaker begins between two words.
    """
    placed = _Placed(words, seconds, rules, turns)
    clips: list[Clip] = []
    left_out: Counter[str] = Counter()
    for first, end in placed.clips():
        clip = placed.clip(first, end)
        if (reason := _reason(clip, rules)) is not None:
            left_out[reason] += 1
        elif clip.end > clip.start:
            clips.append(clip)
    return clips, left_out


def whole_clip(text: str, seconds: float, rules: Rules) -> tuple[list[Clip], Counter[str]]:
    """Return the clip of a whole recording, whose text has no times to cut it by; arguments as for `cut_clips`."""
    clip = Clip(0.0, round(seconds, 3), text, None)
    reason = _reason(clip, rules) if math.isfinite(clip.seconds) else TOO_SHORT
    return ([clip], Counter()) if reason is None else ([], Counter({reason: 1}))


def _reason(clip: Clip, rules: Rules) -> str | None:
    """Return the reason for leaving out a clip; None if it is kept."""
    if SEVERAL in clip.speaker:
        return OVERLAP
    if clip.seconds > rules.max_seconds:
        return TOO_LONG
    return TOO_SHORT if clip.seconds < rules.min_seconds else None


def solo_regions(turns: Iterable[Span]) -> list[Span]:
    """Return the regions of turns in order: regions of one speaker, and regions in which several speak at once."""
    ordered = in_order(turns)
    edges = sorted({time for turn in ordered for time in (turn.start, turn.end)})
    regions: list[Span] = []
    active, rest = list[Span](), iter([*ordered, None])
    following = next(rest)
    for start, end in pairwise(edges):
        while following is not None and following.start <= start:
            active.append(following)
            following = next(rest)
        active = [turn for turn in active if turn.end > start]
        if speakers := sorted({turn.speaker for turn in active}):
            score = sum(turn.score for turn in active) / len(active)
            regions.append(Span(SEVERAL.join(speakers), start, end, score, SEVERAL.join(speakers)))
    return regions


class _Placed:
    """Words of a recording with the places at which clips may begin and end."""

    def __init__(self, words: Iterable[Span], seconds: float, rules: Rules, turns: Iterable[Span]) -> None:
        self.rules = rules
        self.words = [
            word._replace(end=min(word.end, seconds)) for word in in_order(with_times(words)) if word.start < seconds
        ]
        self.ends = list(accumulate((word.end for word in self.words), max))
        self.lefts = [self._left(place) for place in range(len(self.words))]
        self.rights = [self._right(place, seconds) for place in range(len(self.words))]
        self._changes = {*self._speaker_changes(turns)} if rules.by == "turns" else set[int]()

    def _speaker_changes(self, turns: Iterable[Span]) -> Iterator[int]:
        """Yield words with another speaker than the next one, or with a turn of another one before that."""
        for place, (word, following) in enumerate(pairwise(self.words)):
            if word.speaker != following.speaker:
                yield place
        starts = [word.start for word in self.words]
        for turn in turns:
            place = bisect_right(starts, turn.start) - 1
            is_between = 0 <= place < len(starts) - 1 and self.ends[place] <= turn.start
            if is_between and turn.speaker != self.words[place].speaker:
                yield place

    def _middle(self, place: int) -> float:
        """Return the middle of the pause before a word."""
        return (self.ends[place - 1] + self.words[place].start) / 2

    def _left(self, place: int) -> float:
        return max(0.0, self.words[place].start - self.rules.padding, self._middle(place) if place else 0.0)

    def _right(self, place: int, seconds: float) -> float:
        following = self._middle(place + 1) if place + 1 < len(self.words) else math.inf
        return min(seconds, self.ends[place] + self.rules.padding, following)

    def pause(self, place: int) -> float:
        """Return the seconds between a word and the next one; infinite after the last."""
        if place + 1 == len(self.words):
            return math.inf
        return self.words[place + 1].start - self.ends[place]

    def clips(self) -> Iterator[tuple[int, int]]:
        """Yield the first word of each clip, and the one after its last."""
        first = 0
        while first < len(self.words):
            last = self._last(first)
            yield first, last + 1
            first = last + 1

    def _last(self, first: int) -> int:
        fitting: list[int] = []
        for place in range(first, len(self.words)):
            if round(self.rights[place] - self.lefts[first], 3) > self.rules.max_seconds:
                break
            if self.pause(place) >= self.rules.max_pause or place in self._changes:
                return place
            fitting.append(place)
        return self._preferred(first, fitting) if fitting else first

    def _preferred(self, first: int, fitting: Sequence[int]) -> int:
        """Return the best of the words that a clip may end with."""
        least, half = self.rules.min_seconds, max(self.rules.min_seconds, self.rules.max_seconds / 2)
        if self.rules.by == "sentences":
            ends = [place for place in fitting if ends_sentence(self.words[place].text)]
            if ends and self.rights[ends[-1]] - self.lefts[first] >= least:
                return ends[-1]
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
            speaker=words[0].speaker if len({word.speaker for word in words}) == 1 else "",
        )
