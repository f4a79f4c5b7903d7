"""Speed of a worker from the steps of a training, in the sink of the recipe or in another sink."""

from collections.abc import Mapping

from raysp.errors import PlanError
from raysp.labelling.planning.costs import Speed
from raysp.specs.values import JsonValue
from raysp.storage.options import GivenOptions, options_of
from raysp.storage.store import Store, scheme_of
from raysp.storage.stores import open_store
from raysp.training.planning.ordering import Costs, imbalance
from raysp.training.planning.training_plan import TrainingPlan
from raysp.training.sink import committed_steps, training_record
from raysp.training.sink.step_log import Steps
from raysp.training.sink.training_record import TrainingRecord
from raysp.words import count, duration

LAST_STEPS = 500
"""Number of last steps that are read."""
COMPARED = ("checkpoint_digest", "dtype", "objective.type", "objective.freeze", "schedule.checkpointing")
"""Parts of a training, besides its trained weights, on which the speed of a pass depends most."""


def of_steps(plan: TrainingPlan, store: Store, costs: Costs) -> Speed | None:
    """Return the speed of a worker in the last run of a training, waiting for rows included.

    Waiting for other workers is excluded: the imbalance of the workers of that run is divided out.

    Args:
        plan: the plan.
        store: sink of the training.
        costs: costs of micro-batches, for the imbalance of workers.

    Returns:
        The speed; None if no run has metrics, or the last one ran on another device or with other CPUs.
    """
    log = Steps(store)
    steps = log.last(LAST_STEPS + 1, run_id=log.last_run)
    steps = steps[1:] or steps  # the first step of a run includes the wait for its first rows
    seconds, audio = sum(step.seconds for step in steps), sum(step.audio_seconds for step in steps)
    resolved = {run.run_id: run.resolved for run in training_record.runs(store)}.get(log.last_run)
    if not seconds or not audio or (resolved and _machine(resolved) != _machine(plan.resolved)):
        return None
    committed = committed_steps.latest(store)
    workers = committed.num_workers if committed else 1
    waited = sum(step.waited for step in steps) / seconds
    origin = (
        f"{count(len(steps), 'step')} in {store.url}: {duration(audio)} of audio in {duration(seconds)} on "
        f"{count(workers, 'worker')}, waiting for rows {waited:.0%} of the time"
    )
    return Speed(audio / seconds / workers * imbalance(costs, workers), origin)


def of_other(plan: TrainingPlan, url: str, options: GivenOptions | None, costs: Costs) -> Speed:
    """Return the speed of a worker in another training, as `of_steps` does.

    Args:
        plan: the plan.
        url: sink of the other training.
        options: options to reach it; None: the options of the recipe's sink, if both are of the same kind of store.
        costs: costs of micro-batches, for the imbalance of workers.

    Raises:
        PlanError: it is not a sink of a training, was begun with another checkpoint or trains other weights, or has no
            run on this kind of device.
    """
    sink = plan.recipe.sink
    if options is None:
        options = sink.storage_options if scheme_of(url) == scheme_of(sink.url) else {}
    store = open_store(url, options_of(options))
    record = TrainingRecord.existing(store)
    ours, theirs = _compared(plan.parts("")), _compared(record.parts)
    different = [f"{name} {theirs[name]!r}, here {value!r}" for name, value in ours.items() if theirs[name] != value]
    if different:
        raise PlanError(
            f"--like {url}: its training differs in what its speed depends on: {'; '.join(different)}; name the sink "
            "of a training that is alike, or state the speed with --rtfx"
        )
    speed = of_steps(plan, store, costs)
    if speed is None:
        machines = "; ".join(dict.fromkeys(_machine(run.resolved) for run in record.runs if run.resolved)) or "none"
        raise PlanError(
            f"--like {url}: its last run has no steps on {_machine(plan.resolved)}, which this plan uses; found "
            f"{machines}. Name another sink, or state the speed with --rtfx"
        )
    return speed


def _compared(parts: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    few = {name: parts.get(f"objective.{name}") is not None for name in ("lora", "adapter")}
    return {**{name: parts.get(name) for name in COMPARED}, **few}


def _machine(resolved: Mapping[str, JsonValue]) -> str:
    """Return the kind of device of a worker; on CPUs with their number."""
    cpus = resolved.get("cpus_per_worker")
    more = f", {count(cpus, 'CPU')} a worker" if resolved.get("device") == "cpu" and isinstance(cpus, int) else ""
    return f"{resolved.get('dtype')} on {resolved.get('device')}{more}"
