"""Praat's TextGrid in its long text format."""

from collections.abc import Iterator, Mapping, Sequence

from raysp.text.formats.cleaning import end_of, in_order, on_one_line
from raysp.text.times import Span

LEAST_SECONDS = 0.001
"""Duration of a file without one: Praat requires an end after the start."""


def textgrid(tiers: Mapping[str, Sequence[Span]], seconds: float) -> str:
    """Return a TextGrid file with an interval tier for each sequence of spans.

    The intervals of a tier cover the recording: empty ones lie between its spans. A span that begins before the end of
    the one before it is shortened; spans without a duration are left out. Quotes are doubled.

    Args:
        tiers: spans by the name of their tier, in order.
        seconds: duration of the recording.
    """
    end = max(LEAST_SECONDS, *(end_of(in_order(spans), seconds) for spans in tiers.values()))
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


def _tier(name: str, intervals: Sequence[Span], end: float) -> Iterator[str]:
    yield '        class = "IntervalTier"'
    yield f"        name = {_quoted(name)}"
    yield "        xmin = 0"
    yield f"        xmax = {_number(end)}"
    yield f"        intervals: size = {len(intervals)}"
    for number, one in enumerate(intervals, 1):
        yield f"        intervals [{number}]:"
        yield f"            xmin = {_number(one.start)}"
        yield f"            xmax = {_number(one.end)}"
        yield f"            text = {_quoted(one.text)}"


def _intervals(spans: Sequence[Span], end: float) -> Iterator[Span]:
    """Yield spans and the empty intervals between them, which cover the time from 0 to `end`."""
    place = 0.0
    for span in in_order(spans):
        start, stop = max(place, round(span.start, 6)), round(span.end, 6)
        if stop <= start:
            continue
        if start > place:
            yield Span("", place, start, 0.0)
        yield Span(span.text, start, stop, 0.0)
        place = stop
    if place < round(end, 6) or place == 0:
        yield Span("", place, round(end, 6), 0.0)


def _number(seconds: float) -> str:
    return f"{seconds:.6f}".rstrip("0").rstrip(".")


def _quoted(text: str) -> str:
    return '"' + on_one_line(text).replace('"', '""') + '"'
