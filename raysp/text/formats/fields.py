"""Formats of one line per span, whose fields are separated by spaces: NIST CTM and RTTM."""

import math
from collections.abc import Iterable

from raysp.text.formats.cleaning import NOTHING, as_field, in_order
from raysp.text.times import Span


def ctm(id_: str, words: Iterable[Span], channel: int = 1) -> str:
    """Return the lines of a recording in a CTM file: id, channel, start, duration, word, confidence.

    Channels are counted from 1. Seconds have three digits. Words are sorted by their start. A word without a score has
    no last field.
    """
    return "".join(
        f"{as_field(id_)} {channel} {_times(word)} {as_field(word.text)}{_score(word)}\n" for word in in_order(words)
    )


def rttm(id_: str, segments: Iterable[Span], channel: int = 1) -> str:
    """Return the lines of a recording in an RTTM file: one SPEAKER line per segment, whose text is the speaker.

    Channels are counted from 1. Seconds have three digits. Segments are sorted by their start.
    """
    begin, end = f"SPEAKER {as_field(id_)} {channel}", f"{NOTHING} {NOTHING}\n"
    return "".join(
        f"{begin} {_times(one)} {NOTHING} {NOTHING} {as_field(one.text)} {end}" for one in in_order(segments)
    )


def _times(span: Span) -> str:
    """Return the start and the duration; their sum is the rounded end."""
    start, end = round(span.start, 3), round(span.end, 3)
    return f"{start:.3f} {end - start:.3f}"


def _score(word: Span) -> str:
    return f" {min(max(word.score, 0.0), 1.0):.4f}" if math.isfinite(word.score) else ""
