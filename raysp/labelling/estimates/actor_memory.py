"""Peak memory of actors and readers, predicted from model size, budget and longest window."""

from dataclasses import dataclass

from raysp.devices import is_accelerator
from raysp.labelling.estimates.row_sampling import Sample
from raysp.labelling.estimates.simulation import Simulation
from raysp.labelling.planning.run_plan import Plan
from raysp.machine import PROCESS_BYTES, READER_BYTES
from raysp.models.summary import OWN
from raysp.ops.blocks import BLOCK_BYTES
from raysp.ops.budget import passes_of_actor
from raysp.ops.precision import item_bytes

READER_SHARE = 3.5
"""Memory of a reader for each byte of the largest recording."""
HELD_BLOCKS = 2
"""Blocks that an actor holds: one that it labels and one that waits, each with its samples."""


@dataclass(frozen=True)
class Memory:
    """Predicted peak memory in bytes."""

    weights: float
    activations: float
    """Bytes of the activations of the forward passes that run at once."""
    actor: float
    """Main memory of an actor."""
    gpu: float | None
    """Memory of its GPU; None: the model runs on CPUs."""
    reader: float
    """Main memory of a task that reads and decodes."""


def predict(plan: Plan, sample: Sample, simulation: Simulation) -> Memory:
    """Return the memory of an actor and of a reader, of which the sample holds the largest recording."""
    settings, checkpoint = plan.settings, plan.settings.checkpoint
    item_size = item_bytes(settings.dtype)
    is_cpu = not is_accelerator(settings.device)
    threads = settings.cpus_per_actor.number if is_cpu else None
    is_own = checkpoint.backend == OWN
    at_once = passes_of_actor(threads, settings.batching, exact=plan.pipeline.label.exact, is_own=is_own)
    weights = float(item_size * checkpoint.num_parameters)
    activations = max(2, item_size) * checkpoint.activations_per_second * simulation.largest_pass * at_once
    block = min(BLOCK_BYTES, 4 * checkpoint.sample_rate * simulation.real_seconds / max(1, simulation.blocks))
    held = PROCESS_BYTES + HELD_BLOCKS * block
    return Memory(
        weights=weights,
        activations=activations,
        actor=held + (weights + activations if is_cpu else weights),
        gpu=None if is_cpu else weights + activations,
        reader=READER_BYTES + READER_SHARE * sample.largest_recording(plan.pipeline.source.audio),
    )
