"""Formats of exports, and the options that each has."""

from collections.abc import Mapping
from dataclasses import asdict

from raysp.errors import SpecError
from raysp.specs.values import JsonValue
from raysp.text.formats.cues import Rules
from raysp.text.formats.line_breaks import SMALL_WORDS

ID, PATH = "id", "path"
"""Ways to name the files of rows."""
OK, ALL = "ok", "all"
"""Rows that are written."""
COLUMN = "pred"
"""Default prefix of the columns that are exported."""
SUBTITLES: Mapping[str, JsonValue] = {
    "column": COLUMN,
    "names": None,
    **asdict(Rules()),
}
"""Options of subtitles."""
OPTIONS: Mapping[str, Mapping[str, JsonValue]] = {
    "srt": SUBTITLES,
    "vtt": SUBTITLES,
    "ctm": {"column": COLUMN, "one_file": False},
    "textgrid": {"column": COLUMN, "names": None},
    "rttm": {"column": COLUMN, "one_file": False},
    "jsonl": {"rows": OK, "one_file": False},
    "csv": {"rows": OK, "one_file": False},
    "nemo": {"column": COLUMN, "audio": True, "one_file": False},
    "dataset": {"audio": True, "split": "train", "licence": None},
    "clips": {
        "column": COLUMN,
        "min_seconds": 1.0,
        "max_seconds": 20.0,
        "min_score": None,
        "sample_rate": 16_000,
        "split": "train",
        "licence": None,
    },
}
"""Options of each format, with their defaults."""
BESIDE = tuple(to for to, options in OPTIONS.items() if options is SUBTITLES)
"""Formats whose files can stand beside recordings."""
NAMES = (ID, PATH)
ROWS = (OK, ALL)
LANGUAGES = tuple(SMALL_WORDS)
RANGES = {
    "min_score": (0, 1, "a probability from 0 to 1"),
    "max_chars": (8, 1000, "8 to 1000"),
    "max_lines": (1, 3, "1 to 3"),
    "max_chars_per_second": (1, 1000, "1 to 1000"),
    "min_gap_seconds": (0, 1, "0 to 1"),
    "sample_rate": (1000, 192_000, "1000 to 192000 Hz"),
}
"""Least and largest value of options, and both in words."""


def suffix_of(to: str) -> str:
    """Return the suffix of the files of a format."""
    return ".TextGrid" if to == "textgrid" else f".{to}"


def refuse_beside(to: str, names: JsonValue) -> None:
    """Raise SpecError unless files of a format can stand beside recordings, with their names."""
    if to in OPTIONS and OPTIONS[to] is not SUBTITLES:
        raise SpecError(f"export: beside=True does not apply to {to}; it is an option of {', '.join(BESIDE)}")
    if names == ID:
        raise SpecError("export: names='id' and beside=True; files beside recordings have their names: leave out one")


def settled(to: str, given: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Return the options of a format: the given ones, and defaults for those that are None.

    Raises:
        SpecError: there is no such format, it has no such option, or a value is invalid.
    """
    if to not in OPTIONS:
        raise SpecError(f"export: found the format {to!r}; expected one of {', '.join(OPTIONS)}")
    set_ = {name: value for name, value in given.items() if value is not None}
    for name in set_:
        if name not in OPTIONS[to]:
            having = ", ".join(one for one, options in OPTIONS.items() if name in options)
            raise SpecError(f"export: {name}={set_[name]!r} does not apply to {to}; it is an option of {having}")
    found = {**OPTIONS[to], **set_}
    _check(found)
    return found


def _check(options: Mapping[str, JsonValue]) -> None:
    """Raise SpecError if a value is invalid."""
    least, most = _number(options, "min_seconds"), _number(options, "max_seconds")
    if most is not None and not 0 < most <= 3600:
        raise SpecError(f"export: max_seconds={most!r}; expected more than 0 and at most 3600")
    if least is not None and most is not None and not 0 <= least < most:
        raise SpecError(f"export: min_seconds={least!r}; expected from 0 to below max_seconds={most!r}")
    for name, (low, high, expected) in RANGES.items():
        value = _number(options, name)
        if value is not None and not low <= value <= high:
            raise SpecError(f"export: {name}={value!r}; expected {expected}")
    for name, values in {
        "names": (*NAMES, None),
        "rows": ROWS,
        "language": (*LANGUAGES, None),
    }.items():
        if options.get(name, values[0]) not in values:
            allowed = ", ".join(value for value in values if value)
            raise SpecError(f"export: {name}={options[name]!r}; expected one of {allowed}")
    split = options.get("split")
    if split is not None and not (isinstance(split, str) and split.isidentifier()):
        raise SpecError(f"export: split={split!r}; expected a name of letters, digits and _")


def _number(options: Mapping[str, JsonValue], name: str) -> float | None:
    value = options.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise SpecError(f"export: {name}={value!r}; expected a number")
    return value
