"""Weights of a training before it starts, from a model without values: their bytes, and those of a committed step."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from math import prod

import torch
from torch import Tensor

from raysp.models.base.modeling import Model
from raysp.models.base.placing import without_weights
from raysp.models.base.weights import TensorHeader, num_file_bytes
from raysp.training.loop import state
from raysp.training.loop.averaging import UPDATES
from raysp.training.loop.optimizing import group_parameters
from raysp.training.loop.session import AVERAGE, MODEL, OPTIMIZER
from raysp.training.loop.step_commits import LAST_COMMITS
from raysp.training.planning.optimizers import kept_state, shape_of
from raysp.training.planning.training_plan import TrainingPlan
from raysp.training.specs.objectives import trains_few_weights
from raysp.training.specs.recipe import Finetune, Schedule
from raysp.training.tasks.task import Task


@dataclass(frozen=True)
class Commit:
    """Size of a committed step in bytes."""

    num_bytes: int
    files: Mapping[str, int]
    """Bytes of each of its files."""
    kept: int
    """Most committed steps that stay: the last steps, and the step of the best evaluation."""

    @property
    def most_bytes(self) -> int:
        """Bytes while one more is written, at most."""
        return (self.kept + 1) * self.num_bytes


@dataclass(frozen=True)
class Weights:
    """Bytes of the weights of a training, in float32, and of the values that are kept for each of them."""

    model: int
    trained: int
    largest: int
    """Bytes of the largest weight that is trained."""
    moments: int
    """Bytes of the state of the optimiser."""
    committed: int
    """Bytes of the weights that a commit holds, with their moving average if the recipe has one."""
    commit: Commit


def model_of(plan: TrainingPlan, task: Task) -> Model:
    """Return the model of a training as it begins, on the device "meta"; no weights are read.

    Args:
        plan: the plan.
        task: its task, with a vocabulary or classes.

    Raises:
        PlanError, CheckpointError: as `Task.objective`.
    """
    on_meta = replace(plan, workers=replace(plan.workers, device="meta"))
    with without_weights():
        return task.objective(on_meta).model


def weights_of(recipe: Finetune, model: Model) -> Weights:
    """Return the weights of a training of a model."""
    kept = state.weights(model, trained_only=trains_few_weights(recipe.objective))
    groups = group_parameters(model)
    trained = {
        name: weight for group in groups for name, weight in zip(group.names, group.parameters, strict=True)
    }  # the rates of groups are not needed
    moments = _moments(recipe.schedule, trained)
    files = {MODEL: num_file_bytes(_headers(kept)), OPTIMIZER: num_file_bytes(moments)}
    if recipe.ema is not None:
        averaged = {name: weight for name, weight in kept.items() if weight.is_floating_point()}
        files[AVERAGE] = num_file_bytes([*_headers(averaged), TensorHeader(UPDATES, torch.int64, ())])
    has_best = recipe.evaluation is not None
    return Weights(
        model=_num_bytes(model.parameters()),
        trained=_num_bytes(trained.values()),
        largest=max(weight.nbytes for weight in trained.values()),
        moments=sum(4 * prod(weight.shape) for weight in moments if weight.shape),
        committed=_num_bytes(kept.values()),
        commit=Commit(sum(files.values()), files, LAST_COMMITS + has_best),
    )


def _headers(tensors: Mapping[str, Tensor]) -> list[TensorHeader]:
    return [TensorHeader(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()]


def _moments(schedule: Schedule, trained: Mapping[str, Tensor]) -> list[TensorHeader]:
    """Return the state of the optimiser, as `state.moments` names it."""
    kept = kept_state(schedule.optimizer, schedule.optimizer_options)
    return [
        TensorHeader(f"{key}{state.SEPARATOR}{name}", value.dtype, tuple(shape_of(value, weight)))
        for name, weight in trained.items()
        for key, value in kept[weight.ndim].items()
    ]


def _num_bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)
