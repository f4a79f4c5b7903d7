"""Sizes of steps, and steps between evaluations, where a recipe leaves them open: fewer for a small corpus."""

import math
from dataclasses import replace

from raysp.training.planning.ordering import Durations, Epoch
from raysp.training.planning.training_plan import TrainingPlan
from raysp.training.planning.workers import refuse_idle
from raysp.training.sink.training_record import TrainingRecord
from raysp.training.specs.recipe import MOST_BETWEEN

LEAST_STEPS = 50
"""Steps of a training over whole epochs, unless they would be shorter than the longest row."""
LEAST_EVALUATIONS = 20
"""Least number of evaluations during a training, unless it has fewer steps."""


def settled(plan: TrainingPlan, durations: Durations, begun: TrainingRecord | None) -> TrainingPlan:
    """Return the plan with the values that its recipe leaves open; the values of a begun training stay.

    Args:
        plan: the plan.
        durations: durations of the rows that are trained on.
        begun: record of the sink; None: nothing has begun.

    Raises:
        PlanError: a step of the begun training has fewer micro-batches than workers.
    """
    recipe, evaluation = plan.recipe, plan.recipe.evaluation
    batching, epochs, longest = recipe.batching, recipe.schedule.epochs, float(durations.seconds.max())
    seconds, number, window_seconds = plan.batching
    if batching.seconds is None:
        if epochs is not None:
            of_training = float(durations.seconds.sum()) * epochs
            seconds = min(seconds, max(math.ceil(longest), math.floor(of_training / LEAST_STEPS)))
        seconds = _recorded(begun, "batching.seconds") or seconds
        if batching.micro_batches is None:
            # A micro-batch holds at least one row, so each must have room for the longest.
            fitting = max(plan.workers.high, int(seconds / longest) if longest else number)
            number = int(_recorded(begun, "batching.micro_batches") or min(number, fitting))
    # A training that was begun with fewer workers may have fewer micro-batches than `settle_workers` assumes.
    refuse_idle(recipe, number, "lower pool.actors, or start over with --restart")
    workers = replace(plan.workers, low=min(plan.workers.low, number), high=min(plan.workers.high, number))
    batching = replace(batching, seconds=seconds, micro_batches=number, window_seconds=window_seconds)
    plan = replace(plan, workers=workers, recipe=replace(recipe, batching=batching))
    if evaluation is None or evaluation.every is not None:
        return plan
    every = int(_recorded(begun, "evaluation.every") or _between_evaluations(plan, durations))
    return replace(plan, recipe=replace(plan.recipe, evaluation=replace(evaluation, every=every)))


def _recorded(begun: TrainingRecord | None, name: str) -> float | None:
    value = begun and begun.value(name)
    return value if isinstance(value, int | float) else None


def _between_evaluations(plan: TrainingPlan, durations: Durations) -> int:
    """Return the steps between evaluations."""
    schedule = plan.recipe.schedule
    epoch_steps = Epoch(durations, plan.sizes, seed=plan.recipe.seed, epoch=0).num_steps
    steps = schedule.steps or epoch_steps * (schedule.epochs or 1)
    return max(1, min(MOST_BETWEEN, steps // LEAST_EVALUATIONS))
