"""Bootstrap intervals of metrics.

Rows, or groups of rows such as the rows of a speaker, are drawn with replacement, as many as there are. The ends of an
interval are percentiles of the metric over the draws (B. Efron, 1979, Ann. Statist. 7, 1-26; for word error rates,
M. Bisani and H. Ney, ICASSP 2004).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

CONFIDENCE = 0.95
WEIGHTS_AT_ONCE = 2**20
"""Weights of draws in memory at once."""


@dataclass(frozen=True)
class Bootstrap:
    """Number of draws, and the seed of their random numbers; without draws there are no intervals."""

    draws: int = 1000
    seed: int = 0


@dataclass(frozen=True)
class Intervals:
    """Bootstrap behind the intervals."""

    over: str | None
    """Column whose values were drawn; None: rows were drawn."""
    draws: int = Bootstrap.draws
    seed: int = Bootstrap.seed
    confidence: float = CONFIDENCE

    @property
    def words(self) -> str:
        """The intervals as text, such as "95%, from 1,000 bootstrap draws of rows"."""
        units = "rows" if self.over is None else f"the values of {self.over}"
        return f"{self.confidence:.0%}, from {self.draws:,} bootstrap draws of {units}"


def intervals(measure: Callable[[Floats], Floats], units_N: Ints, bootstrap: Bootstrap) -> Floats | None:
    """Return the lower and upper ends of the 95 % intervals of M metrics, (2, M); None for fewer than two units.

    The ends are NaN for a metric that no draw defines.

    Args:
        measure: returns the metrics (D, M) of D draws from the weights of the rows (D, N): how often each was drawn.
        units_N: number of each row's unit, from 0. The rows of a unit are drawn together.
        bootstrap: number of draws, and seed.
    """
    if bootstrap.draws == 0 or units_N.size == 0 or units_N.max() == 0:
        return None
    metrics_DM = np.concatenate([measure(weights_DN) for weights_DN in _weights(units_N, bootstrap)])
    ends = 100 * np.array([(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return np.stack([_percentiles(metric_D, ends) for metric_D in metrics_DM.T], axis=1)


def ratios(parts: Floats, totals: Floats) -> Floats:
    """Return parts divided by totals; NaN where a total is 0."""
    shares = np.full(np.broadcast_shapes(parts.shape, totals.shape), np.nan)
    np.divide(parts, totals, out=shares, where=totals > 0)
    return shares


def _weights(units_N: Ints, bootstrap: Bootstrap) -> Iterator[Floats]:
    """Yield the weights of the rows in all draws, some draws at once."""
    random = np.random.default_rng(bootstrap.seed)
    num_units = int(units_N.max()) + 1
    at_once = max(1, WEIGHTS_AT_ONCE // units_N.size)
    for first in range(0, bootstrap.draws, at_once):
        draws = min(at_once, bootstrap.draws - first)
        drawn = random.integers(num_units, size=(draws, num_units)) + num_units * np.arange(draws)[:, None]
        times = np.bincount(drawn.ravel(), minlength=draws * num_units).reshape(draws, num_units)
        yield times[:, units_N].astype(np.float64)


def _percentiles(metric_D: Floats, ends: Floats) -> Floats:
    defined = metric_D[~np.isnan(metric_D)]
    return np.percentile(defined, ends) if defined.size else np.full(2, np.nan)
