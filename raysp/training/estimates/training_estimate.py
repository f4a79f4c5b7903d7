"""Estimate of a training: balance of its workers, size of a commit, and by measurement memory, time and money."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from raysp.devices import is_accelerator
from raysp.errors import PlanError
from raysp.labelling.planning.costs import Amount, Cost, Speed, three_digits, unpriced
from raysp.ops.decoding import Decoder
from raysp.storage.store import Store
from raysp.training.estimates.commit_size import STAND_INS, Commit, commit_of
from raysp.training.estimates.step_speed import of_other, of_steps
from raysp.training.estimates.steps_left import Left, declared, left_of
from raysp.training.estimates.training_calibration import SMALLER, Memory, calibrate
from raysp.training.objectives.task import task_of
from raysp.training.planning.ordering import imbalance, imbalances
from raysp.training.planning.training_plan import TrainingPlan
from raysp.training.preparing import Prepared
from raysp.training.sink.training_record import TrainingRecord
from raysp.words import Brief, count
from raysp.work import EstimateOptions


@dataclass(frozen=True, repr=False)
class TrainingEstimate(Brief):
    """Estimate of a training."""

    left: Left | None
    """Steps and audio that are left; None: unknown before the rows are indexed."""
    imbalance: Mapping[int, float]
    """Load of the slowest worker over the mean of all, by number of workers."""
    commit: Commit
    memory: Memory | None
    """Peak memory of a worker; None: not measured."""
    speed: Speed | None
    """Speed of a worker; None: unknown."""
    cost: Cost | None
    """Time and money; None: the speed or the amount of audio is unknown."""
    notes: tuple[str, ...] = ()

    @property
    def facts(self) -> list[tuple[str, str]]:
        """Facts that `raysp plan` prints, with their names."""
        commit = self.commit
        kept = f"at most {commit.kept} are kept, up to {_bytes(commit.most_bytes)} in all"
        return [
            ("commit", f"{_bytes(commit.num_bytes)} each time; {kept}"),
            ("memory", _memory(self.memory) if self.memory else "unknown: --calibrate measures it"),
            *_time(self).items(),
        ]

    @property
    def messages(self) -> tuple[str, ...]:
        """Sentences that `raysp plan` prints with the facts."""
        memory = self.memory
        if memory is None or memory.limit is None or memory.needed <= memory.limit:
            return self.notes
        place = "a worker's GPU" if memory.on_gpu else "this machine"
        needed = (
            f"the training needs {_bytes(memory.needed)} of memory, and {place} has {_bytes(memory.limit)}: {SMALLER}"
        )
        return (*self.notes, needed)


def estimate_training(
    plan: TrainingPlan,
    prepared: Prepared | None,
    store: Store,
    options: EstimateOptions,
    decoder: Decoder | None = None,
) -> TrainingEstimate:
    """Return the estimate of a training; nothing is written.

    Args:
        plan: the plan.
        prepared: the training; None: its rows are not indexed yet.
        store: the sink of the recipe.
        options: speed and price.
        decoder: decoding functions; None: of this process.

    Raises:
        PlanError: the speed cannot be taken from where it is said to be.
        CheckpointError: the checkpoint cannot be loaded.
    """
    workers, speed, memory, num_rows = plan.workers, None, None, plan.corpora["source"].num_rows
    if prepared is None:
        costs, begun = np.ones((1, plan.sizes.micro_batches)), False
        left, task = declared(plan), task_of(plan).settled(STAND_INS)
        notes = [f"{count(num_rows, 'row')} are not indexed yet: the training counts rows, tokens and steps"]
    else:
        record = TrainingRecord.load(store)
        costs, begun = prepared.costs, record is not None and record.fingerprint == prepared.fingerprint
        left, task, notes = left_of(prepared, store if begun else None), prepared.task, []
    if options.rtfx is not None:
        speed = Speed(options.rtfx, "as stated")
    elif options.like is not None:
        speed = of_other(plan, options.like, options.like_options, costs)
    elif options.calibrate:
        if prepared is None:
            raise PlanError(
                f"--calibrate: {count(num_rows, 'row')} are not indexed yet; begin the training, which "
                "indexes them, name the sink of another training with --like, or state the speed with --rtfx"
            )
        speed, memory = calibrate(prepared, decoder)
    elif begun:
        speed = of_steps(plan, store, costs)
    cost, on_gpu = None, is_accelerator(workers.device)
    if speed and left:
        cost = Cost.of(
            Amount(left.audio_seconds, 0.0),
            speed,
            actors=workers.low,
            devices=1 if on_gpu else workers.threads,
            device="GPU" if on_gpu else "CPU",
            price=options.price,
            imbalance=imbalance(costs, workers.low),
        )
    return TrainingEstimate(
        left=left,
        imbalance=imbalances(costs, {workers.low, workers.high}),
        commit=commit_of(plan, task),
        memory=memory,
        speed=speed,
        cost=cost,
        notes=(*notes, *unpriced(options, speed)),
    )


def _memory(memory: Memory) -> str:
    if memory.on_gpu:
        there = "" if memory.limit is None else f"; the GPU has {_bytes(memory.limit)}"
        return f"tensors of {_bytes(memory.peak)} at most on a worker's GPU, measured here{there}"
    of_worker = memory.peak + memory.rows
    more = f"{_bytes(memory.needed)} for all workers; " if memory.needed > of_worker else ""
    return (
        f"{_bytes(memory.peak)} resident at the peak, measured here, {_bytes(memory.growth)} of it for the training; "
        f"two windows of rows take {_bytes(memory.rows)} more; {more}this machine has {_bytes(memory.limit or 0)}"
    )


def _time(estimate: TrainingEstimate) -> dict[str, str]:
    left, speed, cost = estimate.left, estimate.speed, estimate.cost
    if speed is None:
        return {"time": "unknown: give --rtfx N, --like SINK (of a training), or --calibrate"}
    facts = {"speed": f"{three_digits(speed.rtfx)}x real time on one worker, {speed.origin}"}
    if left is None or cost is None:
        return {**facts, "time": "unknown: the rows are not indexed yet, and the source declares no durations"}
    if not left.share:
        return {**facts, "time": "no step is left"}
    steps = "" if left.steps is None else f" for {count(left.steps, 'step')}"
    share = "" if left.share == 1 else f", the {left.share:.0%} that are left,"
    workers = f"{count(cost.actors, 'worker')} once started, without evaluations and commits"
    return {**facts, **cost.facts(f"{steps}{share} on {workers}")}


def _bytes(num_bytes: float) -> str:
    """Return bytes with three digits: "12.9 MB", "1.07 GB"."""
    return f"{three_digits(num_bytes / 1e6)} MB" if num_bytes < 1e9 else f"{three_digits(num_bytes / 1e9)} GB"
