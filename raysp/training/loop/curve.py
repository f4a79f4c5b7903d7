"""Curve of a training: metrics and evaluations of the steps that a commit covers, written with it."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from raysp.evaluation.scores import WorstRow
from raysp.storage.store import Store
from raysp.training.loop.evaluated import Evaluated
from raysp.training.sink import evaluation_records
from raysp.training.sink.evaluation_records import StepEvaluation
from raysp.training.sink.step_metrics import MetricsLog, StepMetrics
from raysp.training.specs.recipe import Evaluation


class _Step(NamedTuple):
    metrics: StepMetrics
    evaluation: StepEvaluation | None
    before: StepEvaluation | None


class Curve:
    """Writer of the steps and evaluations of one run.

    Args:
        store: the sink.
        run_id: id of the run.
        evaluation: evaluation of the recipe; None without one.
    """

    def __init__(self, store: Store, run_id: str, evaluation: Evaluation | None = None) -> None:
        self.store = store
        self.run_id = run_id
        self.evaluation = evaluation
        self.metrics = MetricsLog(store, run_id)
        self._steps: list[_Step] = []

    def add(self, step: StepMetrics, evaluated: Evaluated | None, before: Evaluated | None = None) -> None:
        """Add a step, with the evaluations after and before it."""
        after, first = (recorded(evaluation, self.evaluation) for evaluation in (evaluated, before))
        self._steps.append(_Step(step, after, first))

    def take(self) -> Callable[[], None]:
        """Return a function that writes the steps since the last call, which may run while more are added.

        It raises StoreError if they cannot be written.
        """
        steps, self._steps = self._steps, []
        return lambda: self._write(steps)

    def _write(self, steps: Sequence[_Step]) -> None:
        for step in steps:
            if step.before is not None:
                evaluation_records.save(self.store, step.metrics.done - 1, step.before, run_id=self.run_id)
            self.metrics.add(step.metrics)
            if step.evaluation is not None:
                evaluation_records.save(self.store, step.metrics.done, step.evaluation, run_id=self.run_id)
        self.metrics.write()


def recorded(evaluated: Evaluated | None, evaluation: Evaluation | None) -> StepEvaluation | None:
    """Return an evaluation of the first worker as it is stored; None without one, and for other workers."""
    comparison = evaluated.comparison if evaluated else None
    if evaluated is None or evaluation is None or comparison is None:
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
    further = {name: recorded(other, evaluation) for name, other in evaluated.others.items()}
    return StepEvaluation(
        metric=evaluation.best,
        scores=comparison.scores,
        by=comparison.by,
        worst=tuple(worst),
        classes=comparison.classes,
        loss=evaluated.loss,
        normalisation=evaluation.normalise if "wer" in comparison.scores.metrics else None,
        measure=evaluated.measure,
        others={name: other for name, other in further.items() if other is not None},
    )
