"""Default amounts of audio per forward pass and per block. They change the speed, never a label."""

from raysp.capabilities import Capability
from raysp.models.labelled_passes import CheckpointSummary
from raysp.ops.precision import Batching

BLOCK_WORK_SECONDS = 10.0
"""Compute time of a block: long compared with the engine's overhead per block, short compared with a run."""
CPU_BATCH_SECONDS = 15.0
"""On a CPU a pass has a negligible fixed cost, so a larger batch only adds padding (docs/evidence/performance.md)."""
USUAL_FRAMES_A_SECOND = 50
"""Frames a second of the layers of most models; those of SEW-D and FastConformer have fewer."""
COARSE_BATCH_FRAMES = 1500
"""Frames of a pass on a CPU of layers with fewer frames a second: a product of few rows is slower."""
CPU_TEXT_SECONDS = 60.0
"""A step of a text decoder reads all of its weights, whatever the number of texts."""
GPU_BATCH_SECONDS = 600.0
GPU_TEXT_SECONDS = 2400.0
CPU_FLOPS_PER_THREAD = 4e10
GPU_FLOPS = 2e14


MEMORY_SHARE = 0.5
"""Share of an actor's memory planned for weights and activations, whose sizes are estimates."""
LEAST_BATCH_SECONDS = 1.0


MOST_AT_ONCE = 4
"""Most forward passes that an actor runs at once on CPUs: each needs memory, and holds the interpreter now and then."""


def passes_at_once(threads: int) -> int:
    """Return the number of forward passes that share the threads of an actor on CPUs, each with an equal number.

    Passes of one thread each do not wait for each other, as the threads of one pass do after every operation. Two
    threads or more have several passes: of the numbers that leave the fewest threads over, the largest.
    """
    return max(range(min(threads, MOST_AT_ONCE), 0, -1), key=lambda n: (n > 1, n * (threads // n)))


def passes_of_actor(threads: int | None, batching: Batching, *, is_own: bool = True) -> int:
    """Return the number of forward passes that an actor runs at once: of windows alone, one for each thread.

    Args:
        threads: torch threads on CPUs; None: one pass at a time, as on a GPU.
        batching: batching of windows.
        is_own: whether the model is one of raysp; one of another library may not allow several passes at once.
    """
    if threads is None or not is_own:
        return 1
    return threads if batching is Batching.ALONE else passes_at_once(threads)


def batch_seconds(
    checkpoint: CheckpointSummary, *, on_gpu: bool, memory: float | None = None, at_once: int = 1
) -> float:
    """Return the padded seconds of audio per forward pass: as many as improve the speed and fit into memory.

    Args:
        checkpoint: the model.
        on_gpu: whether it runs on a GPU, which implies half precision.
        memory: bytes of memory of an actor; None: unknown, and assumed sufficient.
        at_once: number of forward passes that run at once.
    """
    most = _most_seconds(checkpoint, on_gpu=on_gpu)
    if memory is None:
        return most
    itemsize = 2 if on_gpu else 4
    room = MEMORY_SHARE * memory - itemsize * checkpoint.num_parameters
    return max(LEAST_BATCH_SECONDS, min(most, room / at_once / (itemsize * checkpoint.activations_per_second)))


def _most_seconds(checkpoint: CheckpointSummary, *, on_gpu: bool) -> float:
    writes_text = Capability.TEXT_DECODER in checkpoint.gives
    if on_gpu:
        return GPU_TEXT_SECONDS if writes_text else GPU_BATCH_SECONDS
    together = checkpoint.windows_together * checkpoint.padded_samples / checkpoint.sample_rate
    return max(CPU_TEXT_SECONDS if writes_text else CPU_BATCH_SECONDS, _coarse_seconds(checkpoint), together)


def _coarse_seconds(checkpoint: CheckpointSummary) -> float:
    """Return the seconds of a pass of coarse frames; 0 for usual ones, and for models without frames (stride 0)."""
    is_coarse = checkpoint.hidden_stride * USUAL_FRAMES_A_SECOND > checkpoint.sample_rate
    return COARSE_BATCH_FRAMES * checkpoint.hidden_stride / checkpoint.sample_rate if is_coarse else 0


def block_seconds(
    checkpoint: CheckpointSummary, *, on_gpu: bool, batch_seconds: float, threads: int, at_once: int = 1
) -> float:
    """Return the seconds of audio per block: about ten seconds of work, and at least four batches.

    Args:
        checkpoint: the model.
        on_gpu: whether it runs on a GPU.
        batch_seconds: padded seconds of audio per forward pass.
        threads: torch threads of an actor on CPUs.
        at_once: number of forward passes that run at once, of which a block has as many.
    """
    frames_per_second = checkpoint.sample_rate / checkpoint.frame_stride
    work = 2 * checkpoint.num_parameters * frames_per_second
    speed = GPU_FLOPS if on_gpu else CPU_FLOPS_PER_THREAD * threads
    return max(BLOCK_WORK_SECONDS * speed / work, max(4, at_once) * batch_seconds)
