"""Files of annotations: NIST CTM and RTTM, of one line per span, and Praat's TextGrid in its long text format."""

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from raysp.text.formats.safe_values import NOTHING, as_field, end_of, in_order, on_one_line
from raysp.text.times import Span

LEAST_SECONDS = 0.001
"""Duration of a file without one: Praat requires an end after the start."""


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
        f"{begin} {_times(span)} {NOTHING} {NOTHING} {as_field(span.text)} {end}" for span in in_order(segments)
    )


def _times(span: Span) -> str:
    """Return the start and the duration; their sum is the rounded end."""
    start, end = round(span.start, 3), round(span.end, 3)
    return f"{start:.3f} {end - start:.3f}"


def _score(word: Span) -> str:
    return f" {min(max(word.score, 0.0), 1.0):.4f}" if math.isfinite(word.score) else ""


def textgrid(tiers: Mapping[str, Sequence[Span]], seconds: float) -> str:
    """Return a TextGrid file with an interval tier for each sequence of spans.

    The intervals of a tier cover the recording: empty ones lie between its spans. A span that begins before the end of
    the one before it is shortened, and so is one that ends after the recording; spans without a duration join the one
    before them. The file ends with the recording, or with the last span if that begins after it. Quotes are doubled.

    Args:
        tiers: spans by the name of their tier, in order.
        seconds: duration of the recording.
    """
    end = _end(tiers.values(), seconds)
    lines = [
        'File type = "ooTextFile"',
        'Object class = "TextGrid"',
        "",
        "xmin = 0",
        f"xmax = {_number(end)}",
        "tiers? <exists>",
        f"size = {len(tiers)}",
        "item []:",
    ]
    for number, (name, spans) in enumerate(tiers.items(), 1):
        lines += [f"    item [{number}]:", *_tier(name, list(_intervals(spans, end)), end)]
    return "\n".join(lines) + "\n"


def _end(tiers: Collection[Sequence[Span]], seconds: float) -> float:
    """Return the end of a recording; of the last span if one has no time within the recording."""
    latest = max(LEAST_SECONDS, *(end_of(in_order(spans), seconds) for spans in tiers))
    within = seconds if LEAST_SECONDS <= seconds < latest else latest
    texts = [[interval.text for spans in tiers for interval in _intervals(spans, end)] for end in (within, latest)]
    return within if len([*filter(None, texts[0])]) == len([*filter(None, texts[1])]) else latest


def _tier(name: str, intervals: Sequence[Span], end: float) -> Iterator[str]:
    yield '        class = "IntervalTier"'
    yield f"        name = {_quoted(name)}"
    yield "        xmin = 0"
    yield f"        xmax = {_number(end)}"
    yield f"        intervals: size = {len(intervals)}"
    for number, interval in enumerate(intervals, 1):
        yield f"        intervals [{number}]:"
        yield f"            xmin = {_number(interval.start)}"
        yield f"            xmax = {_number(interval.end)}"
        yield f"            text = {_quoted(interval.text)}"


def _intervals(spans: Sequence[Span], end: float) -> Iterator[Span]:
    """Yield spans and the empty intervals between them, which cover the time from 0 to `end`.

    A span without a duration, such as a mark of punctuation, joins the span before it, or else the one after it.
    """
    place, end, last = 0.0, round(end, 6), Span("", 0.0, 0.0, 0.0)
    for span in in_order(spans):
        start, stop = max(place, round(span.start, 6)), min(end, round(span.end, 6))
        if stop <= start:
            if span.end <= span.start:
                last = last._replace(text=_together(last.text, span.text))
            continue
        if last.end > last.start:
            yield last
        before = "" if last.end > last.start else last.text
        if start > place:
            yield Span("", place, start, 0.0)
        last = Span(_together(before, span.text), start, stop, 0.0)
        place = stop
    if last.end > last.start:
        yield last
    if place < end or place == 0:
        yield Span("" if last.end > last.start else last.text, place, end, 0.0)


def _together(before: str, text: str) -> str:
    return f"{before} {text}" if before else text


def _number(seconds: float) -> str:
    return f"{seconds:.6f}".rstrip("0").rstrip(".")


def _quoted(text: str) -> str:
    return '"' + on_one_line(text).replace('"', '""') + '"'
