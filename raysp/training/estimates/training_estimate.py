"""Estimate of a training: balance of its workers, size of a commit, memory, time and money."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from raysp.errors import PlanError
from raysp.labelling.planning.costs import Amount, Cost, Speed
from raysp.models.base.devices import is_accelerator
from raysp.ops.balance import numbers_of_workers
from raysp.storage.options import GivenOptions
from raysp.storage.store import Store
from raysp.training.estimates.step_speed import of_other, of_steps
from raysp.training.estimates.training_rows import Left, RowFacts
from raysp.training.estimates.weight_sizes import Commit, model_of, weights_of
from raysp.training.estimates.worker_memory import Memory, predict
from raysp.training.planning.training_plan import TrainingPlan
from raysp.training.preparing import Prepared
from raysp.training.tasks.task_table import task_of
from raysp.words import brief, brief_html, count

if TYPE_CHECKING:
    from raysp.ops.decoding import Decoder

STAND_INS: Mapping[str, int] = dict.fromkeys("abcdefghijklmnopqrstuvwxyz '", 1)
"""Characters or classes of a corpus that is not indexed: their number changes a head by kilobytes."""


@dataclass(frozen=True, repr=False)
class TrainingEstimate:
    """Estimate of a training."""

    left: Left | None
    """Steps and audio that are left; None: unknown before the rows are indexed."""
    imbalance: Mapping[int, float]
    """Load of the slowest worker over the mean of all, by number of workers."""
    commit: Commit
    memory: Memory
    speed: Speed | None
    """None: unknown."""
    cost: Cost | None
    """None: the speed or the amount of audio is unknown."""
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Return a text that fits on a screen."""
        return brief(self)

    def _repr_html_(self) -> str:
        """Return the fields as a table for notebooks."""
        return brief_html(self)


@dataclass(frozen=True)
class Given:
    """Speed and price as a user gives them; at most one of the first three gives the speed.

    Attributes:
        rtfx: seconds of audio on which one worker trains per second.
        like: sink of another training, whose last run gives the speed.
        calibrate: whether the speed is measured in this process.
        like_options: storage options of `like`.
        price: price of an hour of one GPU, or of one CPU.
    """

    rtfx: float | None = None
    like: str | None = None
    calibrate: bool = False
    like_options: GivenOptions | None = None
    price: float | None = None


def estimate_training(
    plan: TrainingPlan, prepared: Prepared | None, store: Store, given: Given, decoder: "Decoder | None" = None
) -> TrainingEstimate:
    """Return the estimate of a training; nothing is written.

    Args:
        plan: the plan.
        prepared: the training; None: its rows are not indexed yet.
        store: the sink of the recipe.
        given: speed and price.
        decoder: decoding functions; None: those of this process.

    Raises:
        PlanError: the speed cannot be taken from where it is said to be.
        CheckpointError: the checkpoint cannot be loaded.
    """
    rows = RowFacts.assumed(plan) if prepared is None else RowFacts.of(prepared, store, decoder)
    model = model_of(plan, task_of(plan).settled(STAND_INS) if prepared is None else prepared.task)
    weights = weights_of(plan.recipe, model)
    sizes = {"window_bytes": rows.window_bytes, "window_pieces": rows.window_pieces}
    memory = predict(plan, model, weights, rows.batches, **sizes)
    speed = _speed(plan, prepared, rows, store, given, decoder)
    workers = plan.workers
    numbers = numbers_of_workers(plan.sizes.micro_batches, (workers.low, workers.high))
    return TrainingEstimate(
        left=rows.left,
        imbalance={number: rows.imbalance_of(number) for number in numbers},
        commit=weights.commit,
        memory=memory,
        speed=speed,
        cost=_cost(plan, rows, rows.left, speed, given.price) if speed and rows.left else None,
        notes=(rows.note,) if rows.note else (),
    )


def _speed(
    plan: TrainingPlan,
    prepared: Prepared | None,
    rows: RowFacts,
    store: Store,
    given: Given,
    decoder: "Decoder | None",
) -> Speed | None:
    if given.rtfx is not None:
        return Speed(given.rtfx, "as stated")
    if given.like is not None:
        return of_other(plan, given.like, given.like_options, rows.parts, rows.imbalance_of)
    if not given.calibrate:
        return of_steps(plan, store, rows.imbalance_of) if rows.has_begun else None
    if prepared is None:
        raise PlanError(
            f"--calibrate: {count(plan.num_rows, 'row')} are not indexed yet; begin the training, which indexes them, "
            "name the sink of another training with --like, or state the speed with --rtfx"
        )
    from raysp.training.estimates.training_calibration import calibrate

    return calibrate(prepared, decoder)


def _cost(plan: TrainingPlan, rows: RowFacts, left: Left, speed: Speed, price: float | None) -> Cost:
    workers = plan.workers
    on_gpu = is_accelerator(workers.device)
    return Cost.of(
        Amount(left.audio_seconds, 0.0),
        speed,
        actors=workers.low,
        devices=1 if on_gpu else workers.threads,
        device="GPU" if on_gpu else "CPU",
        price=price,
        imbalance=rows.imbalance_of(workers.low),
    )
