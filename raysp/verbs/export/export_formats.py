"""Formats of exports, and the options that each has."""

from collections.abc import Mapping

from raysp.errors import SpecError
from raysp.specs.values import JsonValue

ID, PATH = "id", "path"
"""Ways to name the files of rows."""
OK, ALL = "ok", "all"
"""Rows that are written."""
COLUMN = "pred"
"""Default prefix of the columns that are exported."""
OPTIONS: Mapping[str, Mapping[str, JsonValue]] = {
    "srt": {"column": COLUMN, "max_chars": 42, "max_seconds": 7.0, "names": None},
    "vtt": {"column": COLUMN, "max_chars": 42, "max_seconds": 7.0, "names": None},
    "ctm": {"column": COLUMN, "one_file": False},
    "textgrid": {"column": COLUMN, "names": None},
    "rttm": {"column": COLUMN, "one_file": False},
    "jsonl": {"rows": OK, "one_file": False},
    "csv": {"rows": OK, "one_file": False},
    "nemo": {"column": COLUMN, "audio": True, "one_file": False},
    "dataset": {"audio": True, "split": "train", "licence": None},
    "clips": {
        "column": COLUMN,
        "layout": "parquet",
        "min_seconds": 1.0,
        "max_seconds": 20.0,
        "min_score": None,
        "sample_rate": 16_000,
        "split": "train",
        "licence": None,
    },
}
"""Options of each format, with their defaults."""
LAYOUTS = ("parquet", "tar")
NAMES = (ID, PATH)
ROWS = (OK, ALL)
LEAST_CHARS = 8
"""Smallest `max_chars`."""


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
    score = _number(options, "min_score")
    if score is not None and not 0 <= score <= 1:
        raise SpecError(f"export: min_score={score!r}; expected a probability from 0 to 1")
    chars = _number(options, "max_chars")
    if chars is not None and not LEAST_CHARS <= chars <= 1000:
        raise SpecError(f"export: max_chars={chars!r}; expected {LEAST_CHARS} to 1000")
    rate = _number(options, "sample_rate")
    if rate is not None and not 1000 <= rate <= 192_000:
        raise SpecError(f"export: sample_rate={rate!r}; expected 1000 to 192000 Hz")
    for name, values in {"layout": LAYOUTS, "names": (*NAMES, None), "rows": ROWS}.items():
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
