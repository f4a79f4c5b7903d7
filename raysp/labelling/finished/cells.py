"""Values of label shards as short text, for tables in a terminal."""

from collections.abc import Mapping, Sequence

MOST_CHARACTERS = 120
SHOWN_NUMBERS = 3
LEAST = 5e-4
"""Numbers below it, such as scores of texts that a model is sure of, would be 0 with three decimals."""


def cell(value: object, most: int = MOST_CHARACTERS) -> str:
    """Return a value as text of at most `most` characters.

    Vectors show their first numbers and their count, spans their times, other structs their fields.
    """
    text = _text(value)
    return text if len(text) <= most else text[: most - 1] + "…"


def _text(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.1g}" if 0 < abs(value) < LEAST else f"{value:.3f}"
    if isinstance(value, Mapping):
        return _span(value)
    if not isinstance(value, list):
        return str(value)
    return _listed(value)


def _listed(values: Sequence[object]) -> str:
    if any(isinstance(one, list) and one and isinstance(one[0], Mapping) for one in values):
        return "; ".join(map(_text, values))  # spans of each channel
    if values and all(isinstance(one, list) for one in values):
        return f"{len(values)} x {_numbers(values[0])}"  # type: ignore[arg-type]
    if len(values) > SHOWN_NUMBERS and all(isinstance(one, float) for one in values):
        return _numbers(values)
    return ", ".join(map(_text, values))


def _numbers(values: Sequence[object]) -> str:
    return f"{' '.join(map(_text, values[:SHOWN_NUMBERS]))} … ({len(values)} numbers)"


def _span(value: Mapping[str, object]) -> str:
    """Return a word, a character or a segment with its times: `ONE 0.12-0.48`."""
    if not {"start", "end"} <= value.keys():
        return ", ".join(f"{name} {_text(one)}" for name, one in value.items() if one is not None)
    name = next((_text(value[key]) for key in ("word", "char", "label") if key in value), "")
    return f"{name} {_times(value['start'], value['end'])}".strip()


def _times(start: object, end: object) -> str:
    """Return the times of a span. A word without a token in the vocabulary has none: `-`."""
    if start is None and end is None:
        return _text(None)
    return "-".join("?" if one is None else f"{one:.2f}" for one in (start, end))
