"""Estimate of a training: balance of its workers, size of a commit, memory, time and money."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from raysp.devices import is_accelerator
from raysp.errors import PlanError
from raysp.labelling.planning.costs import Amount, Cost, Speed, three_digits, unpriced
from raysp.storage.store import Store
from raysp.training.estimates.step_speed import of_other, of_steps
from raysp.training.estimates.training_rows import Left, RowFacts
from raysp.training.estimates.weight_sizes import Commit, model_of, weights_of
from raysp.training.estimates.worker_memory import Memory, predict
from raysp.training.planning.ordering import numbers_of_workers
from raysp.training.planning.training_plan import TrainingPlan
from raysp.training.preparing import Prepared
from raysp.training.tasks.task_table import task_of
from raysp.words import Brief, count
from raysp.work import EstimateOptions

if TYPE_CHECKING:
    from raysp.ops.decoding import Decoder

STAND_INS: Mapping[str, int] = dict.fromkeys("abcdefghijklmnopqrstuvwxyz '", 1)
"""Characters or classes of a corpus that is not indexed: their number changes a head by kilobytes."""


@dataclass(frozen=True, repr=False)
class TrainingEstimate(Brief):
    """Estimate of a training."""

    left: Left | None
    """Steps and audio that are left; None: unknown before the rows are indexed."""
    imbalance: Mapping[int, float]
    """Load of the slowest worker over the mean of all, by number of workers."""
    commit: Commit
    memory: Memory
    speed: Speed | None
    """Speed of a worker; None: unknown."""
    cost: Cost | None
    """Time and money; None: the speed or the amount of audio is unknown."""
    notes: tuple[str, ...] = ()

    @property
    def facts(self) -> list[tuple[str, str]]:
        """Facts that `raysp plan` prints, with their names."""
        return facts_of(self)

    @property
    def messages(self) -> tuple[str, ...]:
        """Sentences that `raysp plan` prints with the facts."""
        return (*self.notes, *([too_much(self.memory)] if self.memory.is_too_much else []))


def estimate_training(
    plan: TrainingPlan,
    prepared: Prepared | None,
    store: Store,
    options: EstimateOptions,
    decoder: "Decoder | None" = None,
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
    rows = RowFacts.assumed(plan) if prepared is None else RowFacts.of(prepared, store, decoder)
    model = model_of(plan, task_of(plan).settled(STAND_INS) if prepared is None else prepared.task)
    weights = weights_of(plan.recipe, model)
    sizes = {"window_bytes": rows.window_bytes, "window_pieces": rows.window_pieces}
    memory = predict(plan, model, weights, rows.batches, **sizes)
    speed = _speed(plan, prepared, rows, store, options, decoder)
    workers = plan.workers
    numbers = numbers_of_workers(plan.sizes.micro_batches, (workers.low, workers.high))
    return TrainingEstimate(
        left=rows.left,
        imbalance={number: rows.imbalance_of(number) for number in numbers},
        commit=weights.commit,
        memory=memory,
        speed=speed,
        cost=_cost(plan, rows, rows.left, speed, options.price) if speed and rows.left else None,
        notes=(*([rows.note] if rows.note else ()), *unpriced(options, speed)),
    )


def _speed(
    plan: TrainingPlan,
    prepared: Prepared | None,
    rows: RowFacts,
    store: Store,
    options: EstimateOptions,
    decoder: "Decoder | None",
) -> Speed | None:
    if options.rtfx is not None:
        return Speed(options.rtfx, "as stated")
    if options.like is not None:
        return of_other(plan, options.like, options.like_options, rows.parts, rows.imbalance_of)
    if not options.calibrate:
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


def facts_of(estimate: TrainingEstimate) -> list[tuple[str, str]]:
    """Return the facts in order."""
    commit = estimate.commit
    kept = f"at most {commit.kept} are kept, up to {_bytes(commit.most_bytes)} in all"
    return [
        ("commit", f"{_bytes(commit.num_bytes)} each time; {kept}"),
        ("memory", _memory(estimate.memory) + _measured(estimate.speed)),
        *_time(estimate).items(),
    ]


def _memory(memory: Memory) -> str:
    trained = memory.weights + memory.gradients + memory.moments + memory.average
    parts = (
        f"of which weights and optimiser {_bytes(trained)}, activations {_bytes(memory.activations)}, a commit "
        f"{_bytes(memory.copies)}, rows {_bytes(memory.rows)}"
    )
    more = f"{_bytes(memory.machine)} in all, " if memory.machine > memory.worker else ""
    machine = f"{more}this machine has {_bytes(memory.machine_has)}"
    if memory.gpu is None:
        return f"up to {_bytes(memory.worker)} a worker, {parts}; {machine}"
    there = "" if memory.gpu_has is None else f" of {_bytes(memory.gpu_has)}"
    on_gpu = f"{_bytes(memory.gpu)}{there} of a worker's GPU and {_bytes(memory.worker)} beside it"
    return f"up to {on_gpu}, {parts}; {machine}"


def _measured(speed: Speed | None) -> str:
    return f"; {_bytes(speed.memory_bytes)} measured here" if speed and speed.memory_bytes else ""


def too_much(memory: Memory) -> str:
    """Return a warning with the remedies."""
    of_gpu = memory.gpu is not None and memory.gpu_has is not None and memory.gpu > memory.gpu_has
    needed, there = (memory.gpu, memory.gpu_has) if of_gpu else (memory.machine, memory.machine_has)
    place = "a worker's GPU" if of_gpu else "this machine"
    return (
        f"the training may need {_bytes(needed or 0)} of memory, and {place} has {_bytes(there or 0)}: lower "
        "batching.seconds or batching.window_seconds, raise batching.micro_batches, or set schedule.checkpointing=True "
        "(the estimate is an upper bound)"
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
