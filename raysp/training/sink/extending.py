"""Another length of a training that has begun: it goes on where the steps that are done would have been the same."""

import json
from collections.abc import Mapping
from dataclasses import asdict, replace

from raysp.errors import ChangedError
from raysp.sink.layout import RECIPE
from raysp.sink.run_record import differences
from raysp.specs.values import JsonValue
from raysp.storage.store import Store
from raysp.training.sink.committed_steps import CommittedStep
from raysp.training.sink.training_record import CORPUS, RECORDINGS, TrainingRecord
from raysp.training.specs.objectives import Speakers
from raysp.training.specs.recipe import Finetune, Schedule
from raysp.words import count

LENGTH = frozenset({"schedule.steps", "schedule.epochs"})
"""Parts of the length of a training."""


def has_other_length(record: TrainingRecord, parts: Mapping[str, JsonValue]) -> bool:
    """Return whether a recipe differs from the recorded one in its length alone.

    Args:
        record: record of the training.
        parts: parts of the recipe, with or without parts of its rows.
    """
    names = {*parts, *record.parts.keys() - {CORPUS, RECORDINGS}}
    changed = {name for name in names if record.parts.get(name) != parts.get(name)}
    return bool(changed) and changed <= LENGTH


def with_length(
    store: Store,
    record: TrainingRecord,
    recipe: Finetune,
    committed: CommittedStep | None,
    *,
    parts: Mapping[str, JsonValue],
    fields: JsonValue,
) -> TrainingRecord:
    """Return the record of a training with the length of a recipe that differs in nothing else, and write it.

    The fingerprint of its commits stays.

    Args:
        store: the sink.
        record: record of the training.
        recipe: the recipe.
        committed: the last committed step; None: there is none.
        parts: everything that can change the weights, by dotted name.
        fields: the recipe as JSON.

    Raises:
        ChangedError: the finished steps would have been different, or are more.
    """
    if committed is not None and (why := _reason(recipe, committed)):
        changed = differences(record.parts, parts)
        raise ChangedError(
            f"{store.url}: this training cannot have another length ({'; '.join(changed)}): {why}. Undo the change; or "
            f"use another sink and train the checkpoint of this one further, with objective.checkpoint={store.url!r}; "
            "or start over with --restart",
            changed,
        )
    new = replace(record, recipe=fields, parts=dict(parts))
    store.replace(RECIPE, json.dumps(asdict(new), indent=1).encode())
    return new


def _reason(recipe: Finetune, committed: CommittedStep) -> str:
    """Return the reason why the length cannot change after the committed steps; empty if it can."""
    schedule, done = recipe.schedule, count(committed.position.done, "step")
    if schedule.shape != "constant":
        return (
            f"with schedule.shape={schedule.shape!r} the learning rates of the {done} that are done depend on the "
            "length; only trainings with shape='constant' and warmup=0 can be extended"
        )
    if schedule.warmup:
        return (
            f"schedule.warmup={schedule.warmup:g} is a share of the length, on which the learning rates of the {done} "
            "that are done depend; only trainings with shape='constant' and warmup=0 can be extended"
        )
    if isinstance(recipe.objective, Speakers) and recipe.objective.margin_warmup:
        return (
            f"objective.margin_warmup={recipe.objective.margin_warmup:g} is a share of the length, on which the margin "
            f"of the {done} that are done depends; only trainings with margin_warmup=0 can be extended"
        )
    if _is_shorter(schedule, committed):
        return f"{done} are done already, in {count(committed.position.epoch, 'whole epoch')}"
    patience = recipe.evaluation.patience if recipe.evaluation else None
    if patience is not None and committed.metrics.get("best_misses", 0) >= patience:
        return f"it ended by evaluation.patience={patience} after {done}, not by its length"
    return ""


def _is_shorter(schedule: Schedule, committed: CommittedStep) -> bool:
    """Return whether more is done than a schedule has."""
    position = committed.position
    if schedule.steps is not None:
        return position.done > schedule.steps
    assert schedule.epochs is not None
    return (position.epoch, position.step) > (schedule.epochs, 0)
