"""Result of an evaluation during a training."""

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from raysp.evaluation.scores import HIGHER_IS_BETTER, Comparison, WorstRow
from raysp.training.sink.step_evaluation import StepEvaluation
from raysp.training.specs.recipe import Evaluation

ROWS = ", rows "
"""Between the rule of a measure and the digest of its rows."""


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
    """Rows that could not be decoded, are too long or too short, or on which the model failed."""
    num_rows: int
    """Rows that were evaluated."""
    measure: str
    """Rule and rows by which `value` was measured; values of another measure do not compare with it."""
    rows: tuple[str, ...] = ()
    """Names, such as "a.parquet:7", of the worst rows of the comparison, in their order."""
    others: "Mapping[str, Evaluated]" = field(default_factory=dict)
    """Evaluations of the further corpora by name."""


def rule_of(metric: str, normalisation: str) -> str:
    """Return a metric with the normalisation of the texts that it compares, as text."""
    return f"{metric}, texts normalised by {normalisation!r}" if metric in ("wer", "cer") else metric


def measure_of(rule: str, rows: Iterable[bytes]) -> str:
    """Return a text that identifies a measurement: its rule and its rows.

    Args:
        rule: as `rule_of` returns it.
        rows: digests of the evaluated rows, with their references, in order.
    """
    return f"{rule}{ROWS}{hashlib.sha256(b''.join(rows)).hexdigest()[:16]}"


def comparable(metric: str, value: float | None) -> float | None:
    """Return a value of which lower is better from a metric's value, or the metric from such a value.

    Infinity and NaN become None.
    """
    if value is not None and not math.isfinite(value):
        return None
    return -value if value is not None and HIGHER_IS_BETTER.get(metric, False) else value


def recorded(evaluation: Evaluation, evaluated: Evaluated) -> StepEvaluation | None:
    """Return an evaluation of the first worker as it is recorded; None for other workers.

    Args:
        evaluation: evaluation of the recipe.
        evaluated: the result.
    """
    comparison = evaluated.comparison
    if comparison is None:
        return None
    worst = []
    for mismatch, name in zip(comparison.worst, evaluated.rows, strict=True):
        shard, _, row = name.rpartition(":")
        worst.append(
            WorstRow(
                id=name,
                shard=shard,
                row=int(row),
                seconds=None,
                reference=mismatch.reference,
                hypothesis=mismatch.hypothesis,
                errors=mismatch.errors,
                score=mismatch.score,
                edits=mismatch.edits,
            )
        )
    further = {name: recorded(evaluation, other) for name, other in evaluated.others.items()}
    return StepEvaluation(
        metric=evaluation.best,
        scores=comparison.scores,
        by=comparison.by,
        worst=tuple(worst),
        classes=comparison.classes,
        loss=evaluated.loss,
        normalisation=evaluation.normalise if "wer" in comparison.scores.metrics else None,
        measure=evaluated.measure,
        failed=evaluated.failed,
        others={name: other for name, other in further.items() if other is not None},
    )
