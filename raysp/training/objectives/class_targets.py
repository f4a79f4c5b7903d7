"""Targets of classification: numbers of classes."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from raysp.text.targets import Target
from raysp.words import count, listed

NO_CLASS, UNKNOWN_CLASS = "no_class", "unknown_class"
"""Reasons: a class is null or empty; it is not among the classes."""
SHOWN_CLASSES = 12
"""Classes that are shown with their rows."""


class ClassTargets:
    """Numbers of the classes of rows.

    Args:
        names: the classes; None: undetermined yet, so that all numbers are 0.
    """

    def __init__(self, names: Sequence[str] | None) -> None:
        self.places = None if names is None else {name: place for place, name in enumerate(names)}
        self.counts: Counter[str] = Counter()
        """Rows of each class so far."""

    def __call__(self, value: object) -> Target:
        """Return the target of a value, and count its class."""
        if value is None or value == "":
            return Target((), NO_CLASS)
        name = str(value)
        self.counts[name] += 1
        if self.places is None:
            return Target([0])
        return Target([self.places[name]]) if name in self.places else Target((), UNKNOWN_CLASS)

    def misfit(self, target: Target, num_frames: int) -> str:
        """Return an empty text: a recording of any length has a class."""
        return ""


def sorted_classes(names: Iterable[str]) -> tuple[str, ...]:
    """Return the classes in order: by value if all are integers, else by characters."""
    ordered = sorted(names)
    if all(name.removeprefix("-").isdecimal() for name in ordered):
        ordered.sort(key=int)
    return tuple(ordered)


def described_classes(names: Sequence[str], counts: Mapping[str, int]) -> str:
    """Return the number of classes, the rows of the most frequent, and unknown values."""
    unknown = {name: number for name, number in counts.items() if name not in {*names}}
    of_names = {name: counts.get(name, 0) for name in names}
    more = f"; unknown: {_listed(unknown)}" if unknown else ""
    return f"{count(len(names), 'class')}: {_listed(of_names)}{more}"


def _listed(counts: Mapping[str, int]) -> str | None:
    chosen = sorted(counts, key=lambda name: (-counts[name], name))
    return listed([f"{name} ({counts[name]:,})" for name in chosen], SHOWN_CLASSES)
