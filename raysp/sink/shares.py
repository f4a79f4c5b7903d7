"""Shares of a sink's shards, so that several drivers label one sink side by side.

A share consists of every n-th shard of the recorded plan. The place of a shard in the plan never changes, so all
drivers agree on the shards of each share, whenever they start and whatever is added to the source meanwhile.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from raysp.errors import SpecError


@dataclass(frozen=True)
class Share:
    """One of several equal shares of the shards of a sink; by default all shards."""

    number: int = 1
    """Number of the share, from 1."""
    of: int = 1
    """Number of shares."""

    @classmethod
    def read(cls, given: tuple[int, int] | None) -> Self:
        """Return a share from its number and the number of shares; all shards for None.

        Raises:
            SpecError: there is no such share.
        """
        if given is None:
            return cls()
        match given:
            case int() as number, int() as of if 1 <= number <= of:
                return cls(number, of)
        raise SpecError(f"shards: found {given!r}, expected (i, n) with 1 <= i <= n, such as (1, 4)")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return a share from its form on the command line, such as "1/4".

        Raises:
            SpecError: there is no such share.
        """
        number, _, of = text.partition("/")
        if number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of):
            return cls(int(number), int(of))
        raise SpecError(f"--shards {text!r}: expected I/N with 1 <= I <= N, such as 1/4")

    @property
    def is_whole(self) -> bool:
        """Whether it consists of all shards."""
        return self.of == 1

    def __str__(self) -> str:
        """Return it as on the command line, such as "1/4"."""
        return f"{self.number}/{self.of}"

    def overlaps(self, other: "Share") -> bool:
        """Return whether some place in a plan belongs to both."""
        # Two residue classes have a common element exactly if they agree modulo the gcd (Chinese remainder theorem).
        return (self.number - other.number) % math.gcd(self.of, other.of) == 0

    def covers(self, other: "Share") -> bool:
        """Return whether every place that belongs to `other` belongs to this one."""
        return other.of % self.of == 0 and self.overlaps(other)

    def names(self, names: Iterable[str]) -> frozenset[str]:
        """Return the names of its shards, from all names in the order of the recorded plan."""
        return frozenset(name for place, name in enumerate(names) if place % self.of == self.number - 1)


ALL = Share()
"""All shards of a sink."""
