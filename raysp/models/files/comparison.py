"""Comparison of a checkpoint's weights with those of a model: names that are missing, unexpected, tied or not used.

The check of a folder, which has headers alone, and the loader, which has tensors, decide by `Model.fit`, which is made
of these functions.
"""

import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, Self, TypeVar

from raysp.errors import CheckpointError

Shape = tuple[int, ...]


class Stored(Protocol):
    """A weight of a checkpoint: its header, or its tensor."""

    @property
    def shape(self) -> Sequence[int]:
        """Sizes of its axes."""


Value = TypeVar("Value", bound=Stored)
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
    """Return the difference of the weights of a checkpoint (`found`) from those of a model (`expected`)."""
    return Difference(
        tuple(name for name in expected if name not in found),
        tuple(name for name in found if name not in expected),
        tuple(
            (name, tuple(found[name]), tuple(shape))
            for name, shape in expected.items()
            if name in found and tuple(found[name]) != tuple(shape)
        ),
    )


@dataclass(frozen=True)
class Fit(Generic[Value]):
    """Assignment of the weights of a checkpoint to those of a model."""

    values: Mapping[str, Value]
    """Weights that the model takes, by its names."""
    difference: Difference
    """Names and shapes that differ, without those of tied weights and of `unused`."""
    refused: Difference
    """Names and shapes of `difference` that must not differ."""
    unused: tuple[str, ...] = ()
    """Names of weights of the checkpoint that belong to no part of the model, such as those of another head."""


def shapes_of(values: Mapping[str, Stored]) -> dict[str, Shape]:
    """Return the shapes of weights by name."""
    return {name: tuple(value.shape) for name, value in values.items()}


def without_tied(
    values: Mapping[str, Value],
    tied: Mapping[str, str],
    are_equal: Callable[[Value, Value], bool],
    where: str | os.PathLike[str],
) -> dict[str, Value]:
    """Return weights without tied ones, which a checkpoint holds under one of two names, or under both.

    Args:
        values: Weights of a checkpoint, by the names of the model.
        tied: {name: name of the weight that it equals}.
        are_equal: Returns whether two weights have the same values.
        where: Name of the checkpoint for messages.

    Raises:
        CheckpointError: Two tied weights have different values.
    """
    kept = dict(values)
    for name, source in tied.items():
        if name not in kept:
            continue
        value = kept.pop(name)
        if not are_equal(value, kept.setdefault(source, value)):
            raise CheckpointError(
                f"{where}: {name} and {source} hold different values, expected equal ones, since tie_word_embeddings "
                "of the decoder makes them one weight: set it to false in config.json to use both, or remove the wrong "
                "one"
            )
    return kept


def short(names: Iterable[str]) -> str:
    """Join names; of a long list, the first few and the count."""
    listed = list(names)
    if not listed:
        return "none"
    rest = len(listed) - SHOWN_NAMES
    return ", ".join(listed[:SHOWN_NAMES]) + (f" and {rest} more ({len(listed)} in all)" if rest > 0 else "")
