"""Sizes of steps, and steps between evaluations, where a recipe leaves them open: fewer for a small corpus."""

import math
from dataclasses import replace
from typing import cast

from raysp.training.planning.ordering import Epoch, Index
from raysp.training.planning.training_plan import TrainingPlan, sizes_of
from raysp.training.sink.training_record import TrainingRecord
from raysp.training.specs.recipe import MOST_BETWEEN, Finetune

LEAST_STEPS = 50
"""Steps of a training over whole epochs, unless they would be shorter than the longest row."""
LEAST_EVALUATIONS = 20
"""Least number of evaluations during a training, unless it has fewer steps."""


def settled(plan: TrainingPlan, index: Index, begun: TrainingRecord | None) -> TrainingPlan:
    """Return the plan with the values that its recipe leaves open; the values of a begun training stay.

    Args:
        plan: the plan.
        index: durations of the rows that are trained on.
        begun: record of the sink; None: nothing has begun.
    """
    recipe = plan.recipe
    if plan.is_batching_open:
        recorded = begun and begun.value("batching.seconds")
        seconds = cast("float", recorded) if isinstance(recorded, int | float) else _step_seconds(recipe, index)
        recipe = replace(recipe, batching=replace(recipe.batching, seconds=seconds))
    if plan.are_micro_batches_open:
        recorded = begun and begun.value("batching.micro_batches")
        number = recorded if isinstance(recorded, int) else _micro_batches(plan, recipe, index)
        recipe = replace(recipe, batching=replace(recipe.batching, micro_batches=number))
    sizes = sizes_of(recipe.batching)
    plan = replace(plan, recipe=recipe, sizes=sizes, is_batching_open=False, are_micro_batches_open=False)
    evaluation = recipe.evaluation
    if evaluation is None or evaluation.every is not None:
        return plan
    recorded = begun and begun.value("evaluation.every")
    every = recorded if isinstance(recorded, int) else _between_evaluations(plan, index)
    return replace(plan, recipe=replace(recipe, evaluation=replace(evaluation, every=every)))


def _step_seconds(recipe: Finetune, index: Index) -> float:
    """Return the padded seconds of a step: the device's default, or fewer."""
    most = recipe.batching.seconds
    assert most is not None
    if recipe.schedule.epochs is None:
        return most
    longest, of_training = float(index.seconds.max()), float(index.seconds.sum()) * recipe.schedule.epochs
    return min(most, max(math.ceil(longest), math.floor(of_training / LEAST_STEPS)))


def _micro_batches(plan: TrainingPlan, recipe: Finetune, index: Index) -> int:
    """Return the micro-batches of a step: each holds the longest row, as one with a row may not be shorter."""
    seconds, most = recipe.batching.seconds, recipe.batching.micro_batches
    assert seconds is not None
    assert most is not None
    longest = float(index.seconds.max())
    return min(most, max(plan.workers.high, int(seconds / longest) if longest else most))


def _between_evaluations(plan: TrainingPlan, index: Index) -> int:
    """Return the steps between evaluations."""
    schedule = plan.recipe.schedule
    epoch_steps = Epoch(index, plan.sizes, seed=plan.recipe.seed, epoch=0).num_steps
    steps = schedule.steps or epoch_steps * (schedule.epochs or 1)
    return max(1, min(MOST_BETWEEN, steps // LEAST_EVALUATIONS))
