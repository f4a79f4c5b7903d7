"""Quantiles of many numbers in one pass and bounded memory.

Numbers are counted in bins that begin at multiples of four significant digits. The quantile is the beginning of the bin
in which the exact one is, so it has an error of at most 1/1000 of its amount, and never leaves out more; what is above
it is counted exactly.
"""

from collections import defaultdict
from fractions import Fraction
from math import ceil
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

DIGITS = 4
MOST = 1e18
"""Larger amounts have bins of their own, and amounts below its inverse are in the bins next to 0."""
Floats = npt.NDArray[np.float64]


class Kept(NamedTuple):
    """A lower bound, and the number and weight of the numbers from it on."""

    bound: float
    number: int
    weight: float


class QuantileBins:
    """Numbers and their weights by bin."""

    def __init__(self) -> None:
        self._bins: defaultdict[float, list[float]] = defaultdict(lambda: [0, 0.0])

    def add(self, values: Floats, weights: Floats) -> None:
        """Add numbers, none of which is NaN."""
        starts, bins = np.unique(rounded_down(values), return_inverse=True)
        numbers, sums = np.bincount(bins, minlength=len(starts)), np.bincount(bins, weights, minlength=len(starts))
        for start, number, weight in zip(starts.tolist(), numbers.tolist(), sums.tolist(), strict=True):
            counts = self._bins[start]
            counts[0] += number
            counts[1] += weight

    @property
    def number(self) -> int:
        """Number of all."""
        return int(sum(number for number, _ in self._bins.values()))

    @property
    def weight(self) -> float:
        """Weight of all."""
        return sum(weight for _, weight in self._bins.values())

    def quantile(self, share: Fraction) -> Kept:
        """Return the quantile of a share, below which are fewer numbers; there is at least one number.

        It inverts the distribution function: type 1 of Hyndman and Fan 1996, `inverted_cdf` of numpy.
        """
        all_numbers = number = self.number
        weight = self.weight
        rank = max(1, ceil(share * all_numbers))
        for start in sorted(self._bins):
            in_bin, of_bin = self._bins[start]
            if all_numbers - number + in_bin >= rank:
                return Kept(start, number, weight)
            number, weight = number - int(in_bin), weight - of_bin
        raise ValueError("no numbers")


def rounded_down(values: Floats) -> Floats:
    """Return the highest number of four significant digits that is not above each value; those beyond 1e18 stay."""
    is_usual = np.abs(values) < MOST
    usual = np.where(is_usual, values, 0.0)
    amounts = np.maximum(np.abs(usual), 1 / MOST)
    with np.errstate(over="ignore"):  # of the products that are not taken
        exponents = np.floor(np.log10(amounts)).astype(np.int64)
        exponents -= amounts < _scaled(np.full(exponents.shape, 1000.0), exponents)  # of a logarithm that was rounded
        exponents += amounts >= _scaled(np.full(exponents.shape, 10_000.0), exponents)
        steps = np.floor(_scaled(usual, 2 * (DIGITS - 1) - exponents))
        steps -= _scaled(steps, exponents) > usual  # of a product that was rounded
        steps += _scaled(steps + 1, exponents) <= usual
        return np.where(is_usual, _scaled(steps, exponents), values)


def _scaled(steps: Floats, exponents: npt.NDArray[np.int64]) -> Floats:
    """Return multiples of the last of the digits of numbers of an exponent, rounded as their decimals."""
    powers = exponents - (DIGITS - 1)
    tens = 10.0 ** np.abs(powers)
    return np.where(powers < 0, steps / tens, steps * tens)
