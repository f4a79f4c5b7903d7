"""Comparison of a checkpoint's weights with those of a model, by name and shape alone."""

import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Self

from raysp.errors import CheckpointError

Shape = tuple[int, ...]
SHOWN_NAMES = 8
REMEDY = "use the config.json that was saved with these weights"


@dataclass(frozen=True)
class Difference:
    """Weights that only the model or only the checkpoint has, and those whose shapes differ."""

    missing: tuple[str, ...] = ()
    """Names that the checkpoint lacks, in the order of the model."""
    unexpected: tuple[str, ...] = ()
    """Names that the model lacks, in the order of the checkpoint."""
    mismatched: tuple[tuple[str, Shape, Shape], ...] = ()
    """Names with the shapes of the checkpoint and of the model."""

    @property
    def names(self) -> list[str]:
        """All names that differ in any way."""
        return [*self.missing, *self.unexpected, *(name for name, _, _ in self.mismatched)]

    def without(self, names: Iterable[str] = (), *, shapes: Collection[str] = ()) -> Self:
        """Return the difference without these missing and unexpected names, and these mismatched `shapes`."""
        dropped = set(names)
        return type(self)(
            tuple(name for name in self.missing if name not in dropped),
            tuple(name for name in self.unexpected if name not in dropped),
            tuple(entry for entry in self.mismatched if entry[0] not in shapes),
        )

    def check(self, where: str | os.PathLike[str]) -> None:
        """Raise CheckpointError unless there is no difference; the message lists both sides."""
        if self.missing or self.unexpected:
            raise CheckpointError(
                f"{where}: weights do not fit config.json: missing {short(self.missing)}; "
                f"unexpected {short(self.unexpected)}: {REMEDY}"
            )
        if self.mismatched:
            shapes = [f"{name} is {found!r}, expected {expected!r}" for name, found, expected in self.mismatched]
            raise CheckpointError(f"{where}: shapes of weights do not fit config.json: {short(shapes)}: {REMEDY}")


def compare(found: Mapping[str, Shape], expected: Mapping[str, Shape]) -> Difference:
    """Return how the weights of a checkpoint (`found`) differ from those of a model (`expected`)."""
    return Difference(
        tuple(name for name in expected if name not in found),
        tuple(name for name in found if name not in expected),
        tuple(
            (name, tuple(found[name]), tuple(shape))
            for name, shape in expected.items()
            if name in found and tuple(found[name]) != tuple(shape)
        ),
    )


def short(names: Iterable[str]) -> str:
    """Join names; of a long list, the first few and the count."""
    listed = list(names)
    if not listed:
        return "none"
    rest = len(listed) - SHOWN_NAMES
    return ", ".join(listed[:SHOWN_NAMES]) + (f" and {rest} more ({len(listed)} in all)" if rest > 0 else "")
