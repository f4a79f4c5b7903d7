"""Result of an evaluation during a training."""

from dataclasses import dataclass

from raysp.evaluation.scores import Comparison


@dataclass(frozen=True)
class Evaluated:
    """An evaluation of the weights at a step."""

    value: float | None
    """Metric by which weights are compared, lower is better; None: undefined."""
    loss: float | None
    """Mean over the rows whose targets are within the vocabulary; None: there are none."""
    comparison: Comparison | None
    """Metrics with their intervals, groups and worst rows; None on all workers but the first."""
    failed: int
    """Rows that could not be decoded, or are too long or too short."""
    rows: tuple[str, ...] = ()
    """Names, such as "a.parquet:7", of the worst rows of the comparison, in their order."""
