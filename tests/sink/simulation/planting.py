"""Bugs that are planted in the protocol by functions that stand in for its own."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

StandIn = tuple[object, str, object]
"""What is replaced: a module or class, a name in it, and the stand-in."""


@dataclass(frozen=True)
class Bugs:
    """Bugs of one kind of history, each of which a history must find."""

    seed_of: Callable[[int], int]
    within: int
    """Histories in which a bug must be found."""
    planted: dict[str, tuple[int, list[StandIn]]] = field(default_factory=dict)
    """By the name of the bug: the history that is tried first, and what is replaced."""

    def plant(
        self, place: object, name: str, *, first: int, also: Sequence[StandIn] = ()
    ) -> Callable[[Callable[..., object]], Callable[..., object]]:
        """Return a decorator of a bug, which takes the function in whose place it is before the arguments of that.

        Args:
            place: a module or class.
            name: name of the function there.
            first: the history that is tried first: it finds the bug while the simulation stays.
            also: what is replaced as well.
        """
        original = getattr(place, name)

        def decorate(bug: Callable[..., object]) -> Callable[..., object]:
            def stand_in(*arguments: object, **keywords: object) -> object:
                return bug(original, *arguments, **keywords)

            self.planted[bug.__name__] = (first, [(place, name, stand_in), *also])
            return bug

        return decorate

    def seeds(self, bug: str) -> list[int]:
        """Return the seeds of the histories that look for a bug."""
        return [self.seed_of(number) for number in (self.planted[bug][0], *range(self.within))]
