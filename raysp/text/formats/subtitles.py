"""Subtitles as files: SubRip (.srt) and WebVTT (.vtt)."""

import re
from collections.abc import Iterable

from raysp.text.formats.cues import Cue

_IN_SRT = str.maketrans("<>{}\\", "＜＞｛｝＼")
"""SubRip has no escapes. Players take these characters for formatting, so their full-width forms are written."""
_IN_VTT = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_ARROW = re.compile("-{2,}(?=>)")


def srt(cues: Iterable[Cue]) -> str:
    """Return a SubRip file; `-->` in a text is written as `->`, and formatting characters in their full-width form."""
    return "\n".join(
        f"{number}\n{_time(cue.start, ',')} --> {_time(cue.end, ',')}\n"
        + "".join(f"{_ARROW.sub('-', line).translate(_IN_SRT)}\n" for line in cue.lines)
        for number, cue in enumerate(cues, 1)
    )


def vtt(cues: Iterable[Cue]) -> str:
    """Return a WebVTT file; `&`, `<` and `>` are written as character references."""
    return "WEBVTT\n" + "".join(
        f"\n{_time(cue.start, '.')} --> {_time(cue.end, '.')}\n"
        + "".join("".join(_IN_VTT.get(c, c) for c in line) + "\n" for line in cue.lines)
        for cue in cues
    )


def _time(milliseconds: int, point: str) -> str:
    seconds, rest = divmod(milliseconds, 1000)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}{point}{rest:03}"
