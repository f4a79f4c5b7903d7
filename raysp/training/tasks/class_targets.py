"""Targets of classification: the numbers of classes, or the numbers of a regression."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from raysp.text.targets import Target
from raysp.words import count

NO_CLASS, UNKNOWN_CLASS, NO_NUMBER, OTHER_LENGTH = "no_class", "unknown_class", "no_number", "other_length"
"""Reasons: a class is null or empty; it is none of the given ones; a number is null or not finite; a list has another
length than the outputs."""
SHOWN_CLASSES = 12
"""Classes that are shown with their rows."""


class ClassTargets:
    """Numbers of the classes of rows.

    Args:
        names: the classes; None: they are not known yet, so that all numbers are 0.
        is_many: whether a value is a list of classes, of which each counts once; else it is one class.
    """

    def __init__(self, names: Sequence[str] | None, *, is_many: bool = False) -> None:
        self.places = None if names is None else {name: place for place, name in enumerate(names)}
        self.is_many = is_many
        self.counts: Counter[str] = Counter()
        """Rows of each class so far."""

    def __call__(self, value: object) -> Target:
        """Return the target of a value, and count its classes."""
        values = value if self.is_many else [value]
        if not isinstance(values, list) or any(one is None or one == "" for one in values):
            return Target((), NO_CLASS)
        names = dict.fromkeys(map(str, values))
        self.counts.update(names.keys())
        if self.places is None:
            return Target([0] * len(names))
        ids = [self.places[name] for name in names if name in self.places]
        return Target(sorted(ids)) if len(ids) == len(names) else Target((), UNKNOWN_CLASS)

    def frames_needed(self, target: Target) -> int:
        """Return 0: a recording of any length has classes."""
        return 0


class NumberTargets:
    """Numbers of rows, for a regression.

    Args:
        num_outputs: numbers of each row; a value may be a single one instead of a list of one.
    """

    def __init__(self, num_outputs: int) -> None:
        self.num_outputs = num_outputs
        self.counts: Counter[str] = Counter()
        """Empty: numbers are not counted."""

    def __call__(self, value: object) -> Target:
        """Return the target of a value."""
        values: list[Any] = value if isinstance(value, list) else [value]
        numbers = [float("nan") if one is None else float(one) for one in values]
        if not all(map(math.isfinite, numbers)):
            return Target((), NO_NUMBER)
        return Target(numbers) if len(numbers) == self.num_outputs else Target((), OTHER_LENGTH)

    def frames_needed(self, target: Target) -> int:
        """Return 0: a recording of any length has numbers."""
        return 0


def sorted_classes(names: Iterable[str]) -> tuple[str, ...]:
    """Return the classes in order: by value if all are integers, else by characters."""
    found = sorted(names)
    if all(name.removeprefix("-").isdecimal() for name in found):
        found.sort(key=int)
    return tuple(found)


def described_classes(names: Sequence[str], counts: Mapping[str, int], unit: str) -> str:
    """Return the number of classes, the rows of the most frequent, and values that are none of them."""
    others = {name: number for name, number in counts.items() if name not in {*names}}
    known = {name: counts.get(name, 0) for name in names}
    parts = [f"{count(len(names), unit)}: {_listed(known)}"]
    return "; unknown: ".join([*parts, *([_listed(others)] if others else [])])


def _listed(counts: Mapping[str, int]) -> str:
    chosen = sorted(counts, key=lambda name: (-counts[name], name))
    more = f" and {len(chosen) - SHOWN_CLASSES:,} more" if len(chosen) > SHOWN_CLASSES else ""
    return " ".join(f"{name} ({counts[name]:,})" for name in chosen[:SHOWN_CLASSES]) + more
