"""Formats of one line per span, whose fields are separated by spaces: NIST CTM and RTTM."""

import math
from collections.abc import Iterable

from raysp.text.formats.cleaning import NOTHING, as_field, in_order
from raysp.text.times import Span


def ctm(id_: str, words: Iterable[Span]) -> str:
    """Return the lines of a recording in a CTM file: id, channel, start, duration, word, confidence.

    Seconds have three digits. Words are sorted by their start. A word without a score has no last field.
    """
    return "".join(
        f"{as_field(id_)} 1 {_times(word)} {as_field(word.text)}{_score(word)}\n" for word in in_order(words)
    )


def rttm(id_: str, segments: Iterable[Span]) -> str:
    """Return the lines of a recording in an RTTM file: one SPEAKER line per segment, whose text is the speaker.

    Seconds have three digits. Segments are sorted by their start.
    """
    return "".join(
        f"SPEAKER {as_field(id_)} 1 {_times(one)} {NOTHING} {NOTHING} {as_field(one.text)} {NOTHING} {NOTHING}\n"
        for one in in_order(segments)
    )


def _times(span: Span) -> str:
    """Return the start and the duration; their sum is the rounded end."""
    start, end = round(span.start, 3), round(span.end, 3)
    return f"{start:.3f} {end - start:.3f}"


def _score(word: Span) -> str:
    return f" {min(max(word.score, 0.0), 1.0):.4f}" if math.isfinite(word.score) else ""
