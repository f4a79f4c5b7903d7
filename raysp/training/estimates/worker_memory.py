"""Peak memory of the workers of a training, predicted from a model without values and the largest micro-batch."""

from collections.abc import Iterable
from dataclasses import dataclass

from raysp.cluster.resources import gpu_memory
from raysp.devices import PROCESS_BYTES, READER_BYTES, is_accelerator, memory_bytes, num_cpus
from raysp.models.base.modeling import Model
from raysp.ops.blocks import HALF
from raysp.training.data.augmenting import MOST_SECONDS
from raysp.training.estimates.activation_memory import Arithmetic, Batch, activation_bytes
from raysp.training.estimates.weight_sizes import Weights
from raysp.training.planning.training_plan import TrainingPlan
from raysp.training.specs.augmentations import OfSounds

TRAINING_BYTES = 250e6
"""Further memory of a process that trains: code of the optimiser and of reports, and the allocator's cache."""
GPU_BYTES = 600e6
"""Memory of a GPU that its driver and the libraries take."""
RAY_BYTES = 1.4e9
"""Memory of the processes of Ray on a machine, and of further actors than the workers, mostly Ray Train's."""
READERS_A_CPU = 2
"""Most tasks that read at once, for each CPU of the machine; a window of fewer pieces has fewer tasks."""
HELD_WINDOWS = 2
"""Windows in memory: the window in use, and the next window."""
WINDOW_SHARE = 1.3
"""Memory of a window for each byte of its samples."""
TEMPORARIES = 3
"""Copies of the largest weight: its gradient before it is added, and terms of the update."""
GPU_TEMPORARIES = 2
"""Copies of all trained weights in an update on a GPU, which updates them together."""
LEAST_SOUND_BYTES = 4_000
"""Encoded bytes of a second of a sound, at least."""


@dataclass(frozen=True)
class Memory:
    """Predicted peak memory in bytes, an upper bound."""

    weights: float
    gradients: float
    moments: float
    """Bytes of the state of the optimiser."""
    average: float
    """Moving average of the weights; 0 without one."""
    activations: float
    """Bytes of the activations of the largest micro-batch, forward and backward."""
    copies: float
    """Copies that are made for a commit, while training goes on."""
    rows: float
    """A worker's rows of two windows, and the sounds of augmentations."""
    worker: float
    """Main memory of a worker."""
    gpu: float | None
    """Memory of its GPU; None: it trains on CPUs."""
    machine: float
    """Main memory of all workers, and on Ray of its processes and of tasks that read."""
    machine_has: float
    """Main memory that this process may use."""
    gpu_has: float | None
    """Memory of a GPU of this machine; None: unknown, or there is none."""

    @property
    def is_too_much(self) -> bool:
        """Whether this machine or its GPU has less."""
        of_gpu = self.gpu is not None and self.gpu_has is not None and self.gpu > self.gpu_has
        return of_gpu or self.machine > self.machine_has


def predict(
    plan: TrainingPlan,
    model: Model,
    weights: Weights,
    batches: Iterable[Batch],
    *,
    window_bytes: float,
    window_pieces: float = float("inf"),
) -> Memory:
    """Return the memory of a training.

    Args:
        plan: the plan.
        model: its model, without values.
        weights: sizes of its weights.
        batches: micro-batches that may be the largest.
        window_bytes: bytes of the samples of the largest window.
        window_pieces: pieces of a window, each of which is read by a task if there are several workers.
    """
    workers, recipe = plan.workers, plan.recipe
    on_gpu = is_accelerator(workers.device)
    arithmetic = Arithmetic(on_gpu, plan.dtype in HALF, recipe.schedule.checkpointing)
    rate = plan.checkpoint.sample_rate
    activations = max(activation_bytes(model, batch, rate, arithmetic) for batch in batches)
    average = float(weights.committed if recipe.ema is not None else 0)
    kept = float(weights.model + weights.trained + weights.moments + average)
    passes = max(
        activations, average if recipe.evaluation else 0.0
    )  # weights are copied while the average is evaluated
    if arithmetic.is_half:
        passes += weights.model / 2  # copies of the weights in half precision
    passes = max(passes, GPU_TEMPORARIES * weights.trained) if on_gpu else passes + TEMPORARIES * weights.largest
    copies = float(weights.commit.num_bytes)
    rows = HELD_WINDOWS * WINDOW_SHARE * window_bytes / workers.low + _sound_bytes(plan)
    exported = 2.0 * weights.model  # a copy with merged weights, and the checkpoint that is loaded for comparison
    process = PROCESS_BYTES + TRAINING_BYTES
    of_ray = RAY_BYTES + PROCESS_BYTES + min(window_pieces, READERS_A_CPU * num_cpus()) * READER_BYTES
    if on_gpu:
        worker, gpu = process + rows + max(weights.model, copies), GPU_BYTES + kept + passes
    else:
        worker, gpu = process + kept + max(rows + passes + copies, exported), None
    return Memory(
        weights=float(weights.model),
        gradients=float(weights.trained),
        moments=float(weights.moments),
        average=average,
        activations=activations,
        copies=copies,
        rows=rows,
        worker=worker,
        gpu=gpu,
        machine=worker if workers.low == 1 else workers.low * worker + of_ray,
        machine_has=float(memory_bytes()),
        gpu_has=gpu_memory() if on_gpu else None,
    )


def _sound_bytes(plan: TrainingPlan) -> float:
    """Return the bytes of the sounds that a worker holds, in float32: an hour of each corpus, or less."""
    total = 0.0
    for place, corpus in plan.sounds.items():
        assert isinstance(plan.recipe.augment[place], OfSounds)
        seconds = sum(shard.num_bytes for shard in corpus.shards) / LEAST_SOUND_BYTES
        total += 4 * plan.checkpoint.sample_rate * min(MOST_SECONDS, seconds)
    return total
