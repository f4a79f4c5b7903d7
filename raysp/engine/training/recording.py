"""What a training writes of its evaluations."""

from raysp.evaluation.scores import WorstRow
from raysp.sink.training import evaluations
from raysp.sink.training.evaluations import StepEvaluation
from raysp.specs.recipe import Evaluation
from raysp.storage.store import Store
from raysp.training.evaluated import Evaluated


def save_evaluation(store: Store, run_id: str, done: int, evaluated: Evaluated, evaluation: Evaluation) -> None:
    """Write an evaluation of the weights after a step.

    Args:
        store: the sink.
        run_id: id of the run.
        done: updates of the weights.
        evaluated: the evaluation, by the first worker.
        evaluation: that of the recipe.

    Raises:
        StoreError: the sink cannot be written.
    """
    comparison = evaluated.comparison
    if comparison is None:
        return
    worst = []
    for one, name in zip(comparison.worst, evaluated.rows, strict=True):
        shard, _, row = name.rpartition(":")
        worst.append(
            WorstRow(
                id=name,
                shard=shard,
                row=int(row),
                seconds=None,
                reference=one.reference,
                hypothesis=one.hypothesis,
                errors=one.errors,
                score=one.score,
                edits=one.edits,
            )
        )
    record = StepEvaluation(
        metric=evaluation.best,
        scores=comparison.scores,
        by=comparison.by,
        worst=tuple(worst),
        classes=comparison.classes,
        loss=evaluated.loss,
        normalisation=evaluation.normalise,
    )
    evaluations.save(store, done, record, run_id=run_id)
