"""Result of an evaluation during a training."""

import math
from dataclasses import dataclass

from raysp.evaluation.scores import HIGHER_IS_BETTER, Comparison


@dataclass(frozen=True)
class Evaluated:
    """An evaluation of the weights at a step."""

    value: float | None
    """Metric by which weights are compared, as `comparable` returns it; None: undefined."""
    loss: float | None
    """Mean over the rows whose targets are within the vocabulary; None: there are none."""
    comparison: Comparison | None
    """Metrics with their intervals, groups and worst rows; None on all workers but the first."""
    failed: int
    """Rows that could not be decoded, are too long or too short, or have another number of frames than classes."""
    rows: tuple[str, ...] = ()
    """Names, such as "a.parquet:7", of the worst rows of the comparison, in their order."""


def comparable(metric: str, value: float | None) -> float | None:
    """Return a value of which lower is better from that of a metric, or the metric from such a value.

    Infinity, which is the best value if no evaluation defines the metric, becomes None.
    """
    if value is not None and math.isinf(value):
        return None
    return -value if value is not None and HIGHER_IS_BETTER.get(metric, False) else value
