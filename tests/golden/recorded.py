"""Recorded label rows: their compact form, and their comparison with the rows of today.

Texts, statuses and times are equal; other numbers agree to 1e-5, as docs/decisions/013 says. Vectors are recorded as
their shape, their root mean square and their projections onto fixed random directions.
"""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

DATA = Path(__file__).parent / "data"
LEFT_OUT = ("error_message",)
"""Columns that are worded for people."""
TIMES = {"start", "end", "seconds"}
"""Names of numbers that are times, which are equal to the microsecond."""
TOLERANCE = 1e-5
"""Of numbers, relative to those above 1."""
NUM_DIRECTIONS = 6
LONGEST_LIST = 8
"""Numbers of the longest list that is recorded as it is."""
MOST_DIFFERENCES = 12
"""Differences of a case that are listed."""

ABSENT = "nothing"
"""Stands for the value of a field that is not there."""

Result = tuple[dict[str, Any], list[dict[str, Any]]]
"""A description of the rows of a case, and the rows."""


def path_of(case: str) -> Path:
    """Return the file of a case, whose name is "folder/name"."""
    return DATA / f"{case}.jsonl"


def files() -> dict[str, Path]:
    """Return the files of all recorded cases by their names."""
    return {path.relative_to(DATA).with_suffix("").as_posix(): path for path in sorted(DATA.rglob("*.jsonl"))}


def write(case: str, result: Result) -> None:
    """Write the rows of a case, each on a line, after a line that describes them."""
    head, rows = result
    lines = [json.dumps(one, ensure_ascii=False, separators=(",", ":")) for one in (head, *rows)]
    path_of(case).parent.mkdir(parents=True, exist_ok=True)
    path_of(case).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def read(case: str) -> Result:
    """Return the first line and the rows of a case."""
    head, *rows = map(json.loads, path_of(case).read_text(encoding="utf-8").splitlines())
    return head, rows


def compact(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the recorded form of a row."""
    return {name: _compact(name, value) for name, value in row.items() if name not in LEFT_OUT}


def _compact(name: str, value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 6) if name in TIMES else float(f"{value:.8g}")
    if isinstance(value, Mapping):
        return {key: _compact(key, inner) for key, inner in value.items()}
    if isinstance(value, list) and _is_vector(value):
        return projected(np.asarray(value, np.float64))
    return [_compact(name, inner) for inner in value] if isinstance(value, list) else value


def _is_vector(value: list[Any]) -> bool:
    inner = value[0] if value else None
    return _is_vector(inner) if isinstance(inner, list) else isinstance(inner, float) and len(value) > LONGEST_LIST


def projected(vector: np.ndarray) -> dict[str, Any]:
    """Return the recorded form of a vector of float64."""
    signs = np.random.default_rng(35).integers(0, 2, (NUM_DIRECTIONS, vector.size)) * 2 - 1
    along = signs @ vector.ravel() / math.sqrt(vector.size)
    numbers = {"rms": math.sqrt(np.square(vector).mean()), "along": along.tolist()}
    return {"shape": list(vector.shape), **_compact("", numbers)}


def differences(case: str, expected: Result, found: Result, tolerance: float = TOLERANCE) -> list[str]:
    """Return a line for each value that differs, with its row and column; of the descriptions alone if they differ."""
    if lines := [f"{case}, {line}" for line in _differences("", expected[0], found[0], tolerance)]:
        return lines
    if len(expected[1]) != len(found[1]):
        lines.append(f"{case}: expected {len(expected[1])} rows, found {len(found[1])}")
    for number, (one, other) in enumerate(zip(expected[1], found[1], strict=False)):
        where = f"{case}, row {number} ({one.get('id')!r})"
        lines += [f"{where}, {line}" for line in _differences("", one, other, tolerance)]
    more = len(lines) - MOST_DIFFERENCES
    return [*lines[:MOST_DIFFERENCES], f"... and {more} more"] if more > 0 else lines


def _differences(place: str, expected: Any, found: Any, tolerance: float) -> Iterator[str]:
    if isinstance(expected, dict) and isinstance(found, dict):
        for name in [*expected, *(name for name in found if name not in expected)]:
            inner = f"{place}.{name}" if place else name
            yield from _differences(inner, expected.get(name, ABSENT), found.get(name, ABSENT), tolerance)
    elif isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        for number, (one, other) in enumerate(zip(expected, found, strict=True)):
            yield from _differences(f"{place}[{number}]", one, other, tolerance)
    elif not _is_equal(place, expected, found, tolerance):
        yield f"{place}: expected {_shown(expected)}, found {_shown(found)}"


def _is_equal(place: str, expected: Any, found: Any, tolerance: float) -> bool:
    if not isinstance(expected, float) or not isinstance(found, float):
        return type(expected) is type(found) and expected == found
    if place.rpartition(".")[2] in TIMES:
        return math.isclose(expected, found, rel_tol=0, abs_tol=1.5e-6)
    is_same_special = expected == found or (math.isnan(expected) and math.isnan(found))
    return is_same_special or abs(expected - found) <= tolerance * max(1.0, abs(expected))


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 300 else f"{text[:300]}..."
