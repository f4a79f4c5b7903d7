"""Speed of an actor: as given, from receipts of earlier runs with the same checkpoint, or measured here."""

from collections.abc import Mapping

from raysp.errors import PlanError
from raysp.labelling.estimates.simulation import Simulation
from raysp.labelling.planning.costs import Speed
from raysp.labelling.planning.run_plan import Plan
from raysp.labelling.planning.trust import open_recorded
from raysp.sink import receipts
from raysp.sink.receipts import Counts
from raysp.sink.run_record import RunEntry, RunRecord
from raysp.sink.sinks import Sink
from raysp.specs.steps import EACH
from raysp.storage.options import GivenOptions
from raysp.words import count, duration

MOST_RUNS = 3
"""Last runs whose receipts are read."""
MOST_BATCHES = 8
"""Last batches of receipts that are read of each of them."""


def of_receipts(
    plan: Plan,
    like: str | None = None,
    storage_options: GivenOptions | None = None,
    *,
    channels_per_second: float = 1.0,
) -> Speed | None:
    """Return the speed of the last runs over a sink, waiting for input included; None: it has no such receipts.

    Args:
        plan: the plan.
        like: url of the sink; None: that of the plan.
        storage_options: options to reach it.
        channels_per_second: seconds of labelled channels for each second of audio of that sink, if it has labels of
            each channel.

    Raises:
        PlanError: `like` is not a sink, has another checkpoint, or no run on this kind of device.
    """
    if like is None:
        sink = plan.sink
        record = sink.record()
        if record is None:
            return None
    else:
        sink, record = open_recorded(like, storage_options)
    if like is not None and (ours := _digests(plan.parts)) != (theirs := _digests(record.parts)):
        raise PlanError(
            f"--like {like}: its labels were made with another checkpoint (digest {theirs}, this plan has {ours}); "
            "name a sink of the same checkpoint, or state the speed with --rtfx"
        )
    work, runs = _work(plan, sink, record)
    total = work.busy_seconds + work.wait_seconds
    if work.audio_seconds and total > 0:
        waited = f", waiting for input {work.wait_seconds / total:.0%} of the time"
        origin = f"receipts of {count(runs, 'run')} over {sink.url}: {duration(work.audio_seconds)} of audio{waited}"
        factor = channels_per_second if labels_each_channel(record) else 1.0
        return Speed(factor * work.audio_seconds / total, origin)
    if like is not None:
        found = "; ".join(dict.fromkeys(_machine(run.resolved) for run in record.runs))
        raise PlanError(
            f"--like {like}: no run with receipts has {_machine(_resolved(plan))} as this plan; found "
            f"{found or 'none'}. Name another sink, or state the speed with --rtfx"
        )
    return None


def of_measured_passes(plan: Plan, simulation: Simulation | None) -> Speed | None:
    """Return the speed of the device alone, by passes that the last run measured; None: it measured none.

    The padding of the simulated passes counts. It is an upper bound: the device may wait for input.
    """
    found, efficiency = plan.settings.used, simulation.padding_efficiency if simulation else None
    if found is None or efficiency is None:
        return None
    return Speed(efficiency * found.chosen.rate, f"passes measured on {found.card}, if it never waits for input")


def labels_each_channel(record: RunRecord) -> bool:
    """Return whether the recorded pipeline labels each channel."""
    return EACH in (value for key, value in record.parts.items() if key.endswith(".channel"))


def _work(plan: Plan, sink: Sink, record: RunRecord) -> tuple[Counts, int]:
    """Return the work of the last runs on the same kind of device, and their number."""
    work, runs = Counts(), 0
    alike = [run for run in record.runs if _is_alike(run, plan)]
    for run in reversed(alike):
        pieces = receipts.recent_pieces(sink.store, run.run_id, MOST_BATCHES)
        work = sum((piece.counts for piece in pieces), work)
        runs += bool(pieces)
        if runs == MOST_RUNS:
            break
    return work, runs


def _digests(parts: Mapping[str, object]) -> str:
    return ", ".join(str(value) for key, value in parts.items() if key.endswith(".checkpoint_digest"))


def _is_alike(run: RunEntry, plan: Plan) -> bool:
    return _machine(run.resolved) == _machine(_resolved(plan))


def _resolved(plan: Plan) -> dict[str, object]:
    settings = plan.settings
    return {
        "device": settings.device,
        "dtype": settings.dtype,
        "cpus_per_actor": settings.cpus_per_actor.number,
        "gpus_per_actor": settings.gpus_per_actor,
        "pack_frames": settings.packs.frames if settings.packs else 0,
    }


def _machine(resolved: Mapping[str, object]) -> str:
    """Return the kind of device of an actor; on CPUs with their number. Packs have their own speed."""
    device, dtype = resolved.get("device"), resolved.get("dtype")
    gpus, cpus = resolved.get("gpus_per_actor"), resolved.get("cpus_per_actor")
    of_device = f"{cpus} CPUs" if device == "cpu" or gpus is None else f"{gpus:g} GPUs"
    packed = ", in packs" if resolved.get("pack_frames") else ""
    return f"{dtype} on {device}, {of_device} an actor{packed}"
