"""Subtitles: cues, cut from words with times so that they can be read while they are shown, as SubRip and WebVTT."""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from raysp.text.formats.safe_values import in_order, on_one_line, with_times
from raysp.text.times import Span

LINES = 2
"""Largest number of lines of a cue."""
LEAST_SECONDS = 1.0
"""Shortest display of a cue, unless the next one begins earlier."""
PAUSE_SECONDS = 1.0
"""Pause between words that ends a cue."""
FLASH_SECONDS = 0.15
"""Gaps between cues below this are closed: they would be seen as a flash."""
_SENTENCE_ENDS = (".", "!", "?", "…", "。", "！", "？", "؟", "।")
_IN_SRT = str.maketrans("<>{}\\", "＜＞｛｝＼")
"""SubRip has no escapes. Players take these characters for formatting, so their full-width forms are written."""
_IN_VTT = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_ARROW = re.compile("-{2,}(?=>)")


@dataclass(frozen=True)
class Cue:
    """Text that is shown for some time."""

    start: int
    """Milliseconds from the start of the recording, as `end`."""
    end: int
    lines: tuple[str, ...]
    speaker: str = ""
    """Name of who speaks; empty if that is not known."""


def with_names(words: Iterable[Span]) -> list[Span]:
    """Return words in order of which the first of each speaker's turn has the speaker's name before it."""
    found: list[Span] = []
    for word in in_order(with_times(words)):
        is_first = word.speaker and (not found or found[-1].speaker != word.speaker)
        found.append(word._replace(text=f"{word.speaker}: {word.text}") if is_first else word)
    return found


def cues_of(words: Iterable[Span], *, max_chars: int = 42, max_seconds: float = 7.0) -> tuple[Cue, ...]:
    """Return the cues of words, in the order of their starts; no two overlap.

    A cue ends where the next word would not fit, after a pause, after a sentence, and where the speaker changes. A word
    longer than a line is divided.

    Args:
        words: words with their times in seconds; those without times follow the word before them.
        max_chars: characters of a line; a cue has at most `LINES` lines.
        max_seconds: display of a cue. A longer word is shown for this time.
    """
    cleaned = (one._replace(text=on_one_line(one.text)) for one in in_order(with_times(words)))
    parts = [part for word in cleaned if word.text for part in _divided(word, max_chars)]
    groups = list(_grouped(parts, max_chars, max_seconds))
    return tuple(_timed(groups, max_chars, max_seconds))


def one_cue(text: str, seconds: float, *, max_chars: int = 42) -> tuple[Cue, ...]:
    """Return a cue with a whole text over a whole recording, of any number of lines; none for an empty text."""
    parts = [part.text for part in _divided(Span(on_one_line(text), 0.0, 0.0, 0.0), max_chars)]
    words = [word for part in parts for word in part.split(" ") if word]
    return (Cue(0, max(1, round(seconds * 1000)), tuple(_lines(words, max_chars))),) if words else ()


def _divided(word: Span, max_chars: int) -> Iterator[Span]:
    """Yield the parts of a word that is longer than a line, with shares of its time; combining marks stay with letters.

    A text of several words is divided at its spaces where possible.
    """
    if len(word.text) <= max_chars:
        yield word
        return
    text, place = word.text, 0
    seconds = (word.end - word.start) / max(1, len(text))
    while place < len(text):
        end = min(place + max_chars, len(text))
        if end < len(text):
            space = text.rfind(" ", place + 1, end + 1)
            end = space if space > place else end
            while end > place + 1 and unicodedata.combining(text[end]):
                end -= 1
        start, stop = word.start + place * seconds, word.start + end * seconds
        yield word._replace(text=text[place:end].strip(" "), start=start, end=stop)
        place = end


def _grouped(words: Sequence[Span], max_chars: int, max_seconds: float) -> Iterator[list[Span]]:
    group: list[Span] = []
    for word in words:
        if group and _is_over(group, word, max_chars, max_seconds):
            yield group
            group = []
        group.append(word)
    if group:
        yield group


def _is_over(group: Sequence[Span], word: Span, max_chars: int, max_seconds: float) -> bool:
    """Return whether a cue ends before a word."""
    end = max(one.end for one in group)
    if word.speaker != group[-1].speaker:
        return True
    if word.start - end >= PAUSE_SECONDS or word.end - group[0].start > max_seconds:
        return True
    if group[-1].text.endswith(_SENTENCE_ENDS) and end - group[0].start >= LEAST_SECONDS:
        return True
    return len(_broken([*(one.text for one in group), word.text], max_chars)) > LINES


def _timed(groups: Sequence[Sequence[Span]], max_chars: int, max_seconds: float) -> Iterator[Cue]:
    """Yield cues that are shown long enough, and until the next one if the gap would be a flash."""
    starts = [round(group[0].start * 1000) for group in groups]
    for index, (before, start) in enumerate(pairwise(starts), 1):
        starts[index] = max(start, starts[index - 1] + 1, before + 1)
    for index, (group, start) in enumerate(zip(groups, starts, strict=True)):
        end = max(round(max(one.end for one in group) * 1000), start + round(LEAST_SECONDS * 1000))
        if index + 1 < len(starts) and starts[index + 1] - end < FLASH_SECONDS * 1000:
            end = starts[index + 1]
        end = max(start + 1, min(end, start + max(1, round(max_seconds * 1000))))
        yield Cue(start, end, tuple(_lines([one.text for one in group], max_chars)), group[0].speaker)


def _lines(words: Sequence[str], max_chars: int) -> list[str]:
    """Break words into the fewest lines; two lines are made about equally long."""
    lines = _broken(words, max_chars)
    return [" ".join(line) for line in (_balanced(words) if len(lines) == 2 else lines)]


def _broken(words: Sequence[str], max_chars: int) -> list[list[str]]:
    """Break words into the fewest lines, each as long as possible."""
    lines: list[list[str]] = [[]]
    num_chars = 0
    for word in words:
        if lines[-1] and num_chars + 1 + len(word) > max_chars:
            lines.append([])
        num_chars = num_chars + 1 + len(word) if lines[-1] else len(word)
        lines[-1].append(word)
    return lines


def _balanced(words: Sequence[str]) -> list[list[str]]:
    def longest(place: int) -> int:
        return max(len(" ".join(words[:place])), len(" ".join(words[place:])))

    place = min(range(1, len(words)), key=longest)
    return [list(words[:place]), list(words[place:])]


def srt(cues: Iterable[Cue]) -> str:
    """Return a SubRip file; `-->` in a text is written as `->`, and formatting characters in their full-width form.

    Without cues it has one of a millisecond without a text: readers refuse a file without a time.
    """
    cues = tuple(cues) or (Cue(0, 1, ("",)),)
    return "\n".join(
        f"{number}\n{_time(cue.start, ',')} --> {_time(cue.end, ',')}\n"
        + "".join(f"{_ARROW.sub('-', line).translate(_IN_SRT)}\n" for line in cue.lines)
        for number, cue in enumerate(cues, 1)
    )


def vtt(cues: Iterable[Cue]) -> str:
    """Return a WebVTT file; `&`, `<` and `>` are written as character references. Speakers are voice tags."""
    return "WEBVTT\n" + "".join(
        f"\n{_time(cue.start, '.')} --> {_time(cue.end, '.')}\n"
        + (f"<v {cue.speaker}>" if cue.speaker else "")
        + "".join("".join(_IN_VTT.get(c, c) for c in line) + "\n" for line in cue.lines)
        for cue in cues
    )


def _time(milliseconds: int, point: str) -> str:
    seconds, rest = divmod(milliseconds, 1000)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}{point}{rest:03}"
