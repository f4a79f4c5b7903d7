"""The best evaluation of a training, which decides whose weights are exported."""

import math
from dataclasses import dataclass, replace
from typing import Self

from raysp.errors import ChangedError, RunError
from raysp.evaluation.scores import HIGHER_IS_BETTER
from raysp.training.loop.course import Course
from raysp.training.sink.committed_steps import CommittedStep
from raysp.training.sink.step_evaluation import StepEvaluation
from raysp.training.specs.recipe import Evaluation, Finetune
from raysp.words import count

ROWS = ", rows "
"""Between the rule of a measure and the digest of its rows."""


@dataclass(frozen=True)
class Best:
    """The best evaluation so far."""

    value: float
    """Value of the metric, as `comparable` returns it; lower is better."""
    done: int
    """Updates of its weights."""
    measure: str
    """How it was measured (see `StepEvaluation`)."""
    misses: int = 0
    """Evaluations since."""

    @classmethod
    def of(cls, evaluation: StepEvaluation, done: int) -> Self:
        """Return the first evaluation, after `done` updates.

        Raises:
            RunError: its metric has no finite value.
        """
        value = comparable(evaluation.metric, evaluation.estimate.value)
        if value is None:
            raise RunError(
                f"step {done}: the evaluation has no finite value of its metric ({evaluation.measure}): "
                f"{count(evaluation.scores.rows, 'row')} evaluated, {count(evaluation.failed, 'row')} that could not "
                "be decoded, or of a length that does not fit. Expected rows with references that define it: check "
                "evaluation.source, its column and recordings, or choose another evaluation.best; the training "
                "continues from its last committed step"
            )
        return cls(value, done, evaluation.measure)

    @classmethod
    def read(cls, step: CommittedStep) -> Self | None:
        """Return the best evaluation up to a commit; None if there was none."""
        metrics = step.metrics
        if "best" not in metrics:
            return None
        return cls(metrics["best"], int(metrics["best_done"]), step.measure, int(metrics["best_misses"]))

    def and_then(self, later: "Best") -> "Best":
        """Return the better of this and a later evaluation; the later one if it was measured otherwise."""
        if later.measure == self.measure and later.value >= self.value:
            return replace(self, misses=self.misses + 1)
        return later

    @property
    def rule(self) -> str:
        """The measure without its rows; empty if it is unknown."""
        return self.measure.partition(ROWS)[0]

    def exhausts(self, evaluation: Evaluation | None) -> bool:
        """Return whether the patience of an evaluation has ended."""
        return evaluation is not None and evaluation.patience is not None and self.misses >= evaluation.patience

    @property
    def metrics(self) -> dict[str, float]:
        """Values for the metrics of a commit."""
        return {"best": self.value, "best_done": self.done, "best_misses": self.misses}


def rule_of(evaluation: Evaluation) -> str:
    """Return the metric by which weights are compared, with the normalisation of the texts that it compares."""
    best = evaluation.best
    return f"{best}, texts normalised by {evaluation.normalise!r}" if best in ("wer", "cer") else best


def refuse_another_rule(url: str, step: CommittedStep, recipe: Finetune) -> None:
    """Raise if an evaluation chose the best step that a recipe does not have, and none will be chosen by its own.

    Raises:
        ChangedError: the recipe has no evaluation any more, or the training is done with another one.
    """
    evaluation = recipe.evaluation
    if (best := Best.read(step)) is None or not best.rule:
        return
    expected = rule_of(evaluation) if evaluation else "none"
    is_done = best.exhausts(evaluation) or Course(recipe.schedule).is_done(step.position)
    if expected != best.rule and (is_done or evaluation is None):
        raise ChangedError(
            f"{url}: step {best.done} is the best by an evaluation that the recipe does not have: {best.rule}; found "
            f"in the recipe: {expected}. Undo the change of evaluation, use another sink, or start over with --restart",
            (f"`evaluation` was {best.rule!r}, now {expected!r}",),
        )


def comparable(metric: str, value: float | None) -> float | None:
    """Return the value, negated if higher is better, so that lower is better; a second call restores it.

    Infinity and NaN become None.
    """
    if value is not None and not math.isfinite(value):
        return None
    return -value if value is not None and HIGHER_IS_BETTER.get(metric, False) else value
