"""Texts, times and names of files made safe for formats and systems that cannot hold all of them."""

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
_OF_A_MACHINE = re.compile(r"^(?:(?:file|local)://|[/~\\]|\.\.[/\\]|[A-Za-z]:[/\\])", re.IGNORECASE)
"""Begins of urls and paths that name folders of a machine, and so often a user."""
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


def place_name(place: str) -> str:
    """Return the last part of a local path that is absolute or leads upwards; other places unchanged.

    Cards, which are published, thus show no path of the machine that made them.
    """
    if not _OF_A_MACHINE.match(place):
        return place
    return re.split(r"[/\\]", place.rstrip("/\\"))[-1]


def in_order(spans: Iterable[Span]) -> list[Span]:
    """Return spans sorted by their start, with times of at least 0 and ends that are not before starts.

    Spans whose times are not finite are left out.
    """
    positive = [span._replace(start=max(0.0, span.start)) for span in spans if is_timed(span)]
    return sorted((span._replace(end=max(span.start, span.end)) for span in positive), key=lambda span: span.start)


def is_timed(span: Span) -> bool:
    """Return whether the times of a span are known."""
    return math.isfinite(span.start) and math.isfinite(span.end)


def with_times(words: Iterable[Span]) -> list[Span]:
    """Return words of which those without finite times are placed, without a duration, after the word before them.

    At the beginning they are placed at the start of the first word with times. Without one, none is returned.
    """
    placed = list(words)
    place = next((word.start for word in placed if is_timed(word)), None)
    if place is None:
        return []
    for index, word in enumerate(placed):
        placed[index] = word if is_timed(word) else word._replace(start=place, end=place)
        place = placed[index].end
    return placed


def end_of(spans: Sequence[Span], seconds: float) -> float:
    """Return the end of a recording: its duration, or the end of its last span if that is later."""
    return max([seconds if math.isfinite(seconds) else 0.0, *(span.end for span in spans)])


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
        return {valid(str(key)): plain(field) for key, field in value.items()}
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(value).decode()
    if isinstance(value, Sequence):
        return [plain(field) for field in value]
    return valid(str(value))


LONGEST_NAME_BYTES = 120
"""Longest name made of an id: file systems allow 255 bytes, of which a number and a suffix take some."""
LONGEST_PART_BYTES = 200
"""Longest folder or name, without a suffix, of a path: room for `~`, two numbers and `.TextGrid`."""
LONGEST_PATH_BYTES = 800
"""Longest path: keys of object storage have 1024 bytes."""
_UNSAFE = re.compile(r'[\\/:*?"<>|~\s\x00-\x1f\x7f-\x9f]')
_UNSAFE_IN_PATHS = re.compile(r'[\\:*?"<>|\x00-\x1f\x7f-\x9f\u2028\u2029]')
"""Characters that Windows does not allow in names, and control characters; spaces stay."""
_JOINERS = "\u200c\u200d"
"""Format characters that words of some scripts are written with."""
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]) *(\..*)?", re.IGNORECASE)
"""Names of devices on Windows, with any suffix."""


class FileNames:
    """Names of the files of rows in one folder: no two are equal, also where letter case is ignored.

    An id that is a safe file name is the name of its file. Otherwise, or if an earlier row has that name, the name is
    the id with unsafe characters as `_`, cut to `LONGEST_NAME_BYTES`, followed by `~` and the number of the row. No
    safe name contains `~`.
    """

    def __init__(self) -> None:
        self._used: set[str] = set()

    def __call__(self, id_: str, row: int) -> str:
        """Return the name of the file of a row, without a suffix.

        Args:
            id_: id of the row.
            row: number of the row; each is given once.
        """
        name = _safe(id_)
        key = unicodedata.normalize("NFKC", name).casefold()
        if name != id_ or key in self._used:
            return f"{name}~{row}"
        self._used.add(key)
        return name


def _safe(text: str) -> str:
    name = _UNSAFE.sub("_", unicodedata.normalize("NFC", valid(text))).strip(". ")
    name = "".join("_" if unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp") else c for c in name)
    name = cut(name, LONGEST_NAME_BYTES).rstrip(". ")
    if not name or name[0] in "._-" or _RESERVED.fullmatch(name):
        name = f"x{name}"
    return name


def safe_path(path: str, suffix: str) -> str:
    """Return a path as one that stays in its folder on every system, with the names of its folders kept.

    Characters that a system does not allow are `_`. No part is `.` or `..`, hidden, reserved or too long. No folder
    ends with `~`, or is named like a file with `suffix`. Different paths may become one.

    Args:
        path: parts separated by `/`; an absolute one is taken below the folder.
        suffix: suffix that is appended to the path.
    """
    *folders, name = [part for part in path.split("/") if part not in ("", ".")] or [""]
    return "/".join([*(_safe_folder(part, suffix) for part in folders), _safe_part(name)])


def _safe_folder(text: str, suffix: str) -> str:
    name = _safe_part(text.rstrip(". ~")).rstrip(". ~")
    if name.casefold().endswith(suffix.casefold()):
        name = f"{name[: -len(suffix)]}_{suffix[1:]}"
    return name


def _safe_part(text: str) -> str:
    name = _UNSAFE_IN_PATHS.sub("_", valid(text))
    if not name.isascii():
        name = "".join("_" if unicodedata.category(c) == "Cf" and c not in _JOINERS else c for c in name)
    name = cut(name, LONGEST_PART_BYTES)
    return f"x{name}" if not name.strip() or name[0] == "." or _RESERVED.fullmatch(name) else name


def cut(text: str, most: int) -> str:
    """Return the beginning of a text that has at most a number of bytes in UTF-8."""
    return text.encode()[:most].decode(errors="ignore")


def key_of(path: str) -> str:
    """Return a key that two paths share if they are one file where letter case and Unicode normal forms are ignored."""
    if path.isascii():
        return path.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", path).casefold())
