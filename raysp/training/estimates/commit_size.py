"""Size of a committed step before a training starts, from a model without values."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from raysp.models.base.placing import without_weights
from raysp.training.loop import state
from raysp.training.objectives.task import Criterion, Task
from raysp.training.planning.training_plan import TrainingPlan
from raysp.training.sink.committed_steps import LAST_COMMITS

MOMENTS = 2
"""Values that AdamW, and most optimisers, keep for each weight that is trained."""
STAND_INS: Mapping[str, int] = dict.fromkeys("abcdefghijklmnopqrstuvwxyz '", 1)
"""Characters or classes of a corpus that is not indexed: their number changes a head by kilobytes."""


@dataclass(frozen=True)
class Commit:
    """Size of a committed step: its weights, two moments of those that are trained, and their moving average."""

    num_bytes: int
    kept: int
    """Most committed steps that stay: the last steps, and the step of the best evaluation."""

    @property
    def most_bytes(self) -> int:
        """Bytes while one more is written, at most."""
        return (self.kept + 1) * self.num_bytes


def commit_of(plan: TrainingPlan, task: Task) -> Commit:
    """Return the size of the commits of a training; no weights are read.

    Args:
        plan: the plan.
        task: its task, with a vocabulary or classes.

    Raises:
        PlanError, CheckpointError: as `Task.model`.
    """
    recipe, workers = plan.recipe, replace(plan.workers, device="meta")
    with without_weights():
        model = Criterion.of(task, replace(plan, workers=workers)).model
    committed = state.weights(model, trained_only=recipe.objective.trains_few_weights).values()
    trained = sum(parameter.nbytes for parameter in model.parameters() if parameter.requires_grad)
    averaged = sum(weight.nbytes for weight in committed if weight.is_floating_point()) if recipe.ema is not None else 0
    return Commit(
        num_bytes=sum(weight.nbytes for weight in committed) + MOMENTS * trained + averaged,
        kept=LAST_COMMITS + (recipe.evaluation is not None),
    )
