"""Subtitles as SubRip and WebVTT."""

import re
from collections.abc import Iterable

from raysp.text.formats.cues import Cue
from raysp.text.formats.safe_values import in_order, with_times
from raysp.text.times import Span

_IN_SRT = str.maketrans("<>{}\\", "＜＞｛｝＼")
"""SubRip has no escapes. Players take these characters for formatting, so their full-width forms are written."""
_IN_VTT = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_ARROW = re.compile("-{2,}(?=>)")


def with_names(words: Iterable[Span]) -> list[Span]:
    """Return words in order of which the first of each speaker's turn has the speaker's name before it."""
    found: list[Span] = []
    for word in in_order(with_times(words)):
        is_first = word.speaker and (not found or found[-1].speaker != word.speaker)
        found.append(word._replace(text=f"{word.speaker}: {word.text}") if is_first else word)
    return found


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
