"""Texts, times and values made safe for formats that cannot hold all of them, such as JSON."""

import base64
import csv
import io
import json
import math
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from urllib.parse import quote

from raysp.text.times import Span

NOTHING = "<NA>"
"""Field of an empty text in formats whose fields are separated by spaces."""
_SPECIAL = re.compile(r"[ %]|^[;#]")
_LINE_ENDS = {"\u2028": "\\u2028", "\u2029": "\\u2029", "\x85": "\\u0085"}
"""Characters that some readers take for the end of a line, although JSON allows them in a text."""


def valid(text: str) -> str:
    """Return a text with lone surrogates replaced by U+FFFD, so that it can be encoded as UTF-8."""
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def on_one_line(text: str) -> str:
    """Return a text without control characters, with single spaces in place of all other white space."""
    if text.isprintable():
        return " ".join(text.split())
    kept = (" " if c.isspace() else c for c in valid(text) if c.isspace() or unicodedata.category(c) != "Cc")
    return " ".join("".join(kept).split())


def as_field(text: str) -> str:
    """Return a text as one field of a line whose fields are separated by spaces; an empty one as `NOTHING`.

    White space, control characters and `%` are percent-encoded, as in urls, and so is a `;` or `#` at the start, with
    which comments begin. `urllib.parse.unquote` returns the text.
    """
    if text and text.isprintable() and not _SPECIAL.search(text):
        return text
    is_kept = (c != "%" and not c.isspace() and unicodedata.category(c) != "Cc" for c in valid(text))
    encoded = "".join(c if kept else quote(c, safe="") for c, kept in zip(valid(text), is_kept, strict=True))
    if encoded.startswith((";", "#")):
        encoded = quote(encoded[0], safe="") + encoded[1:]
    return encoded or NOTHING


def in_order(spans: Iterable[Span]) -> list[Span]:
    """Return spans sorted by their start, with times of at least 0 and ends that are not before starts.

    Spans whose times are not finite are left out.
    """
    positive = [one._replace(start=max(0.0, one.start)) for one in spans if is_timed(one)]
    return sorted((one._replace(end=max(one.start, one.end)) for one in positive), key=lambda one: one.start)


def is_timed(span: Span) -> bool:
    """Return whether the times of a span are known."""
    return math.isfinite(span.start) and math.isfinite(span.end)


def with_times(words: Iterable[Span]) -> list[Span]:
    """Return words of which those without finite times are placed, without a duration, behind the word before them.

    At the beginning they are placed at the start of the first word with times. Without one, none is returned.
    """
    found = list(words)
    place = next((one.start for one in found if is_timed(one)), None)
    if place is None:
        return []
    for index, one in enumerate(found):
        found[index] = one if is_timed(one) else one._replace(start=place, end=place)
        place = found[index].end
    return found


def end_of(spans: Sequence[Span], seconds: float) -> float:
    """Return the end of a recording: its duration, or the end of its last span if that is later."""
    return max([seconds if math.isfinite(seconds) else 0.0, *(one.end for one in spans)])


def json_line(values: Mapping[str, object]) -> str:
    """Return an object as one line of JSON.

    Numbers that are not finite are null, bytes are Base64, lone surrogates are U+FFFD, and values without a form in
    JSON, such as dates, are texts.
    """
    line = json.dumps(plain(values), ensure_ascii=False, allow_nan=False)
    for character, escape in _LINE_ENDS.items():
        line = line.replace(character, escape)
    return f"{line}\n"


def csv_line(values: Iterable[object]) -> str:
    """Return values as one record of a CSV file as RFC 4180 describes it; lists are their JSON, and null is empty."""
    line = io.StringIO()
    csv.writer(line).writerow(["" if value is None else _cell(plain(value)) for value in values])
    return line.getvalue()


def _cell(value: object) -> object:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | bool) else value


def plain(value: object) -> object:
    """Return a value of the types that JSON has, as `json_line` writes it."""
    if isinstance(value, str):
        return valid(value)
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {valid(str(key)): plain(one) for key, one in value.items()}
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(value).decode()
    if isinstance(value, Sequence):
        return [plain(one) for one in value]
    return valid(str(value))
