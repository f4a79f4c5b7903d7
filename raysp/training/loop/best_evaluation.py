"""The best evaluation of a training, which decides whose weights are exported."""

from dataclasses import dataclass, replace

from raysp.training.loop.evaluated import Evaluated
from raysp.training.sink.committed_steps import CommittedStep


@dataclass(frozen=True)
class Best:
    """The best evaluation so far."""

    value: float
    """Value of the metric; lower is better."""
    done: int
    """Updates of its weights."""
    measure: str
    """How it was measured (see `Evaluated`)."""
    misses: int = 0
    """Evaluations since."""

    @classmethod
    def read(cls, step: CommittedStep) -> "Best | None":
        """Return the best evaluation up to a commit; None if there was none."""
        metrics = step.metrics
        if "best" not in metrics:
            return None
        return cls(metrics["best"], int(metrics["best_done"]), step.measure, int(metrics["best_misses"]))

    def and_then(self, evaluated: Evaluated, done: int) -> "Best":
        """Return the better of this and a later evaluation; the later one if it was measured otherwise."""
        assert evaluated.value is not None
        if evaluated.measure == self.measure and evaluated.value >= self.value:
            return replace(self, misses=self.misses + 1)
        return Best(evaluated.value, done, evaluated.measure)

    @property
    def metrics(self) -> dict[str, float]:
        """Values for the metrics of a commit."""
        return {"best": self.value, "best_done": self.done, "best_misses": self.misses}
