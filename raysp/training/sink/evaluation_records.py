"""Evaluations of a training: JSON files below `.raysp/evaluations/`, one for each evaluated step of each run.

A run that goes on from an earlier step may evaluate the same steps again. The later run counts.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from itertools import takewhile

from raysp import bounds
from raysp.errors import StoreError
from raysp.evaluation.scores import (
    HIGHER_IS_BETTER,
    TITLES,
    UNDEFINED,
    ClassScores,
    Estimate,
    Group,
    Scores,
    WorstRow,
)
from raysp.sink import records
from raysp.sink.commit import for_each
from raysp.sink.layout import HOME
from raysp.sink.records import AnyFloat
from raysp.storage.store import Store
from raysp.training.sink import training_record

EVALUATIONS = f"{HOME}evaluations/"
LOSS = "loss"

_FILE = re.compile(rf"{re.escape(EVALUATIONS)}(\d+)\.([^/]+)\.json")


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


def save(store: Store, done: int, evaluation: StepEvaluation, *, run_id: str) -> None:
    """Write the evaluation of a step, unless the same step and run has one.

    Args:
        store: the sink.
        done: updates of the weights so far.
        evaluation: the evaluation. Ids of rows become texts unless JSON has their type.
        run_id: id of the run.
    """
    store.create(f"{EVALUATIONS}{done:09}.{run_id}.json", json.dumps(asdict(evaluation), default=str).encode())


def load(store: Store) -> dict[int, StepEvaluation]:
    """Return the evaluations by the updates before them, in order; of a step with several, the last run's.

    Raises:
        StoreError: one cannot be read.
    """
    paths = sorted(entry.path for entry in store.list(EVALUATIONS))
    matches = [match for path in paths if (match := _FILE.fullmatch(path))]
    ours = training_record.belongs(store, {match[2] for match in matches})
    last = {int(match[1]): match[0] for match in matches if match[2] in ours}
    return dict(zip(last, for_each(lambda path: _read(store, path), [*last.values()]), strict=True))


def best(evaluations: Mapping[int, StepEvaluation], metric: str | None = None) -> int | None:
    """Return the step with the best value of a metric; the first of equal values. None if there is no finite value.

    Only the last evaluations that were measured alike count, except the evaluation before the first step.

    Args:
        evaluations: evaluations by step.
        metric: name of the metric; None: the deciding metric of the last evaluation.
    """
    trained = [done for done in sorted(evaluations, reverse=True) if done]
    if not trained:
        return None
    last = evaluations[trained[0]]
    metric = metric or last.metric
    alike = takewhile(lambda done: evaluations[done].measure == last.measure, trained)
    values = {done: evaluations[done].metrics.get(metric, Estimate(None)).value for done in alike}
    sign = -1 if HIGHER_IS_BETTER.get(metric) else 1
    finite = [(sign * value, done) for done, value in values.items() if value is not None and math.isfinite(value)]
    return min(finite)[1] if finite else None


def title(metric: str) -> str:
    """Return the name of a metric for users, such as "WER"."""
    return TITLES.get(metric, metric)


def text(metric: str, estimate: Estimate) -> str:
    """Return a metric as text: a percentage with its interval if there is one, or a plain number for a loss."""
    if metric not in HIGHER_IS_BETTER:
        return UNDEFINED if estimate.value is None else f"{estimate.value:.4g}"
    interval = f" ({estimate.interval})" if estimate.interval != UNDEFINED else ""
    return f"{estimate.percentage}{interval}"


def _read(store: Store, path: str) -> StepEvaluation:
    try:
        values = records.parse(store.read(path), dict[str, object])
        names = {column.name for column in fields(StepEvaluation)}  # later versions of raysp may add some
        return records.checked({name: value for name, value in values.items() if name in names}, StepEvaluation)
    except ValueError as error:
        raise StoreError(f"{store.url}/{path}: not an evaluation ({bounds.plain(error)}); remove this file") from error
