"""Default amounts of audio per forward pass and per block. They change the speed, never a label."""

from raysp.models.summary import CheckpointSummary

BLOCK_WORK_SECONDS = 10.0
"""Compute time of a block: long compared with the engine's overhead per block, short compared with a run."""
CPU_BATCH_SECONDS = 15.0
"""On a CPU the fixed cost of a pass is negligible, so a larger batch only adds padding (docs/performance.md)."""
GPU_BATCH_SECONDS = 600.0
CPU_FLOPS_PER_THREAD = 4e10
GPU_FLOPS = 2e14


MEMORY_SHARE = 0.5
"""Share of an actor's memory planned for weights and activations, whose sizes are estimates."""
LEAST_BATCH_SECONDS = 1.0


def batch_seconds(checkpoint: CheckpointSummary, *, on_gpu: bool, memory: float | None = None) -> float:
    """Return the padded seconds of audio per forward pass: as many as improve the speed and fit into memory.

    Args:
        checkpoint: the model.
        on_gpu: whether it runs on a GPU, which implies half precision.
        memory: bytes of memory of an actor; None: unknown, and assumed sufficient.
    """
    most = GPU_BATCH_SECONDS if on_gpu else CPU_BATCH_SECONDS
    if memory is None:
        return most
    itemsize = 2 if on_gpu else 4
    room = MEMORY_SHARE * memory - itemsize * checkpoint.num_parameters
    return max(LEAST_BATCH_SECONDS, min(most, room / (itemsize * checkpoint.activations_per_second)))


def block_seconds(checkpoint: CheckpointSummary, *, on_gpu: bool, batch_seconds: float, threads: int) -> float:
    """Return the seconds of audio per block: about ten seconds of work, and at least four batches."""
    frames_per_second = checkpoint.sample_rate / checkpoint.frame_stride
    work = 2 * checkpoint.num_parameters * frames_per_second
    speed = GPU_FLOPS if on_gpu else CPU_FLOPS_PER_THREAD * threads
    return max(BLOCK_WORK_SECONDS * speed / work, 4 * batch_seconds)
