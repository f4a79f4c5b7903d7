"""Evaluation of the weights after a step of a training, as it is recorded, and the best of several."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import takewhile

from raysp.evaluation.scores import (
    HIGHER_IS_BETTER,
    UNDEFINED,
    ClassScores,
    Estimate,
    Group,
    Scores,
    WorstRow,
    interval_text,
    value_text,
)
from raysp.sink.records import AnyFloat, Natural

LOSS = "loss"


@dataclass(frozen=True)
class StepEvaluation:
    """Evaluation of the weights after a step."""

    metric: str
    """Name of the metric that decides which step is best: one of `metrics`."""
    scores: Scores
    by: Mapping[str, tuple[Group, ...]]
    """Groups by column, the worst first; `seconds`: by bands of duration."""
    worst: tuple[WorstRow, ...] = ()
    classes: tuple[ClassScores, ...] = ()
    """Scores of each class, the worst first; empty for texts."""
    loss: AnyFloat | None = None
    """Mean loss of the evaluated rows."""
    normalisation: str | None = None
    """Name of the normalisation of both texts."""
    measure: str = ""
    """Rule and rows by which the value of `metric` was measured; values of another measure do not compare with it."""
    failed: Natural = 0
    """Rows that could not be evaluated."""
    others: "Mapping[str, StepEvaluation]" = field(default_factory=dict)
    """Evaluations of the further corpora by name."""

    @property
    def metrics(self) -> dict[str, Estimate]:
        """The metrics of all rows by name, the loss last."""
        return {**self.scores.metrics, **({} if self.loss is None else {LOSS: Estimate(self.loss)})}

    @property
    def estimate(self) -> Estimate:
        """Value of `metric`."""
        return self.metrics.get(self.metric, Estimate(None))


def alike(evaluations: Mapping[int, StepEvaluation]) -> list[int]:
    """Return the steps of the last evaluations that were measured alike, the last first, without step 0."""
    trained = [done for done in sorted(evaluations, reverse=True) if done]
    return [*takewhile(lambda done: evaluations[done].measure == evaluations[trained[0]].measure, trained)]


def best(evaluations: Mapping[int, StepEvaluation], metric: str | None = None) -> int | None:
    """Return the step with the best value of a metric; the first of equal values. None if there is no finite value.

    Only the trailing evaluations with the same `measure` are compared, and never the one before the first step.

    Args:
        evaluations: evaluations by step.
        metric: name of the metric; None: the deciding metric of the last evaluation.
    """
    compared = alike(evaluations)
    if not compared:
        return None
    metric = metric or evaluations[compared[0]].metric
    values = {done: evaluations[done].metrics.get(metric, Estimate(None)).value for done in compared}
    sign = -1 if HIGHER_IS_BETTER.get(metric) else 1
    finite = [(sign * value, done) for done, value in values.items() if value is not None and math.isfinite(value)]
    return min(finite)[1] if finite else None


def text(metric: str, estimate: Estimate) -> str:
    """Return a metric as text: a percentage with its interval if there is one, or a plain number for a loss."""
    if metric not in HIGHER_IS_BETTER:
        return UNDEFINED if estimate.value is None else f"{estimate.value:.4g}"
    interval = interval_text(metric, estimate)
    return f"{value_text(metric, estimate.value)}{f' ({interval})' if interval != UNDEFINED else ''}"
