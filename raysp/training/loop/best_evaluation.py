"""The best evaluation of a training, which decides whose weights are exported."""

import math
from dataclasses import dataclass, replace
from typing import Self

from raysp.errors import RunError
from raysp.evaluation.scores import HIGHER_IS_BETTER
from raysp.training.sink.committed_steps import CommittedStep
from raysp.training.sink.step_evaluation import StepEvaluation
from raysp.words import count


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
    def metrics(self) -> dict[str, float]:
        """Values for the metrics of a commit."""
        return {"best": self.value, "best_done": self.done, "best_misses": self.misses}


def comparable(metric: str, value: float | None) -> float | None:
    """Return the value, negated if higher is better, so that lower is better; a second call restores it.

    Infinity and NaN become None.
    """
    if value is not None and not math.isfinite(value):
        return None
    return -value if value is not None and HIGHER_IS_BETTER.get(metric, False) else value
