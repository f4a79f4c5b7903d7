"""How much audio a forward pass and a block hold, where the pipeline does not say. Changes speed, never a label."""

from raysp.models.summary import CheckpointSummary

BLOCK_WORK_SECONDS = 10.0
"""Of a model's work that a block holds: long against what an engine spends on it, short against a run."""
CPU_BATCH_SECONDS = 15.0
"""On a CPU a pass costs next to nothing by itself, so a larger batch only adds padding (docs/performance.md)."""
GPU_BATCH_SECONDS = 600.0
CPU_FLOPS_PER_THREAD = 4e10
GPU_FLOPS = 2e14


MEMORY_SHARE = 0.5
"""Of an actor's memory that weights and activations are planned to take; what is asked for is an estimate."""
LEAST_BATCH_SECONDS = 1.0


def batch_seconds(checkpoint: CheckpointSummary, *, on_gpu: bool, memory: float | None = None) -> float:
    """Choose the padded seconds of audio of a forward pass: as many as are of use, and no more than fit.

    Args:
        checkpoint: the model.
        on_gpu: where it runs, in half precision there.
        memory: bytes that an actor has; None: unknown, and taken for enough.
    """
    most = GPU_BATCH_SECONDS if on_gpu else CPU_BATCH_SECONDS
    if memory is None:
        return most
    itemsize = 2 if on_gpu else 4
    room = MEMORY_SHARE * memory - itemsize * checkpoint.num_parameters
    return max(LEAST_BATCH_SECONDS, min(most, room / (itemsize * checkpoint.activations_per_second)))


def block_seconds(checkpoint: CheckpointSummary, *, on_gpu: bool, batch_seconds: float, threads: int) -> float:
    """Choose the seconds of audio of a block: some ten seconds of work, and never less than a few batches."""
    frames_per_second = checkpoint.sample_rate / checkpoint.frame_stride
    work = 2 * checkpoint.num_parameters * frames_per_second
    speed = GPU_FLOPS if on_gpu else CPU_FLOPS_PER_THREAD * threads
    return max(BLOCK_WORK_SECONDS * speed / work, 4 * batch_seconds)
