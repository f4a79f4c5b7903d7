"""Steps and audio that a training has left, by its index, or by the durations that its source declares."""

from dataclasses import dataclass

from raysp.storage.store import Store
from raysp.training.data.mixed_epochs import seconds_an_epoch
from raysp.training.loop.course import Course
from raysp.training.planning.training_plan import TrainingPlan
from raysp.training.preparing import Prepared
from raysp.training.sink import committed_steps


@dataclass(frozen=True)
class Left:
    """Steps and audio that a training has left."""

    steps: int | None
    """Steps that are left; None: unknown before the rows are indexed."""
    audio_seconds: float
    share: float
    """Share of the training; below 1 if steps are committed."""


def left_of(prepared: Prepared, store: Store | None) -> Left:
    """Return the rest of a training; `store` is its sink if it has begun."""
    schedule, epoch_steps = prepared.plan.recipe.schedule, prepared.order.first_epoch.num_steps
    committed = committed_steps.latest(store) if store else None
    done = Course(schedule).progress(committed.position, epoch_steps) if committed else 0.0
    num_steps = schedule.steps if schedule.steps is not None else (schedule.epochs or 0) * epoch_steps
    share = max(0.0, 1 - done)
    audio = num_steps * prepared.order.epoch_seconds / epoch_steps
    return Left(round(share * num_steps), share * audio, share)


def declared(plan: TrainingPlan) -> Left | None:
    """Return the rest of a training whose rows are not indexed; None: its source declares no durations."""
    schedule, sizes, mix, corpus = plan.recipe.schedule, plan.sizes, plan.recipe.mix, plan.corpora["source"]
    if schedule.steps is not None:
        return Left(schedule.steps, schedule.steps * sizes.micro_seconds * sizes.micro_batches, 1.0)
    if corpus.seconds is None:
        return None
    seconds = corpus.seconds
    if mix is not None:
        seconds = seconds_an_epoch(mix, {shard.name: shard.seconds or 0.0 for shard in corpus.shards})
    return Left(None, (schedule.epochs or 0) * seconds, 1.0)
