"""Blocks and batches: recordings grouped by similar length to reduce padding, in amounts by speed and precision.

A block is the output of decoding and the input of one labelling task. A batch is one forward pass within a block.
Neither changes a label.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from raysp.audio.waveforms import Windowing
from raysp.devices import is_accelerator
from raysp.models.labelled_passes import CheckpointSummary

PASS_COST = 1 / 15
"""Fixed cost of a forward pass, as a share of a full batch; measured on a CPU."""
ALL_THREADS_COST = 1.2
"""Time of passes in turn with all threads, divided by the time of the same passes at once, with two threads."""
BLOCK_BYTES = 128 * 1024 * 1024
"""Largest number of bytes of samples in one block, as estimated from headers."""


@dataclass(frozen=True)
class Figures:
    """Amounts of audio in a block, and its compute time."""

    windows: int = 0
    audio_seconds: float = 0.0
    padded_seconds: float = 0.0
    busy_seconds: float = 0.0


class BlockOp(Protocol):
    """Op that labels blocks: `prepare`, `run` and `table`, of which only `run` holds the model."""

    blocks_in_flight: int = 1
    """Number of concurrent calls of `run`."""
    has_users_code: bool = False

    def __call__(
        self, block: pa.Table, shard: str = "", *, names: Sequence[object] | None = None
    ) -> tuple[pa.Table, Figures]:
        """Label the windows of a block: `prepare`, `run` and `table`."""
        prepared = self.prepare(block, shard, names=names)
        figures = self.run(prepared)
        return self.table(prepared), figures

    def prepare(self, block: pa.Table, shard: str = "", *, names: Sequence[object] | None = None) -> Any:  # noqa: ANN401
        """Read a block."""
        ...

    def run(self, block: Any) -> Figures:  # noqa: ANN401 - the value of `prepare`
        """Run the model over what `prepare` returned."""
        ...

    def table(self, block: Any) -> pa.Table:  # noqa: ANN401 - the value of `prepare`
        """Return the labelled windows of what `prepare` returned."""
        ...


def cut_blocks(
    seconds: Sequence[float],
    *,
    block_seconds: float,
    bytes_per_second: float,
    kinds: Sequence[str] | None = None,
    in_order: bool = False,
) -> list[list[int]]:
    """Group recordings into blocks of similar length, the longest first.

    Args:
        seconds: estimated duration of each recording; 0 if unknown.
        block_seconds: largest duration of a block, unless a single recording is longer.
        bytes_per_second: bytes of samples per second of audio, to keep a block under `BLOCK_BYTES`.
        kinds: recordings of different kinds never share a batch, so a kind is kept together; None: one kind.
        in_order: whether blocks have neighbours, of any length, since the recordings are parts of few files.

    Returns:
        Indexes into `seconds`, each in one block. There is at least one block, which may be empty.
    """
    most = min(block_seconds, BLOCK_BYTES / bytes_per_second)
    total = sum(seconds)
    # Blocks of equal size, instead of full ones and a remainder, keep the actors of a pool busy to the end.
    target = total / max(1, -(-total // most))
    lengths = [0.0] * len(seconds) if in_order else seconds
    order = sorted(range(len(seconds)), key=lambda i: (kinds[i] if kinds else "", -lengths[i], i))
    blocks: list[list[int]] = [[]]
    block_total = 0.0
    for index in order:
        # A thousandth of slack: sums of seconds round, and could leave a block of the last row alone.
        if blocks[-1] and block_total + seconds[index] > target * 1.001:
            blocks.append([])
            block_total = 0.0
        blocks[-1].append(index)
        block_total += seconds[index]
    return blocks


def cut_batches(num_samples: Sequence[int], max_samples: int) -> list[list[int]]:
    """Group windows into batches of at most `max_samples` padded samples, the longest first.

    Of all partitions of the sorted windows, chooses the one with the least cost: padded samples, plus `PASS_COST` per
    batch.

    Args:
        num_samples: number of samples of each window.
        max_samples: longest window times number of windows in a batch, unless a single window is longer.

    Returns:
        Indexes into `num_samples`, each in one batch.
    """
    order = sorted(range(len(num_samples)), key=lambda i: (-num_samples[i], i))
    longest = np.array([num_samples[i] for i in order], np.int64)
    cost = np.zeros(len(order) + 1)  # of the best partition of the first k windows
    begins = np.zeros(len(order) + 1, np.int64)  # start of the last batch of that partition
    first = 0
    for end in range(1, len(order) + 1):
        while first < end - 1 and longest[first] * (end - first) > max_samples:
            first += 1
        costs = cost[first:end] + longest[first:end] * np.arange(end - first, 0, -1)
        begins[end] = first + int(costs.argmin())
        cost[end] = costs.min() + PASS_COST * max_samples
    batches: list[list[int]] = []
    end = len(order)
    while end:
        batches.append(order[int(begins[end]) : end])
        end = int(begins[end])
    return batches[::-1]


def share_evenly(batches: Sequence[list[int]], at_once: int) -> list[list[int]]:
    """Divide the batches beyond a multiple of `at_once` into `at_once` parts each, or one part per window.

    Args:
        batches: batches of about the same padded samples, the shortest windows last.
        at_once: number of forward passes that run at once.
    """
    whole = len(batches) - len(batches) % at_once
    parts = [batch[place::at_once] for batch in batches[whole:] for place in range(min(at_once, len(batch)))]
    return [*batches[:whole], *parts]


def cut_passes(
    num_samples: Sequence[int], max_samples: int, at_once: int, *, of_one_length: bool = False
) -> list[list[int]]:
    """Group the windows of a block into forward passes by `cut_batches` and `share_evenly`.

    `of_one_length`: each pass has windows of the same length.
    """
    groups: dict[int, list[int]] = {}
    for place, length in enumerate(num_samples):
        groups.setdefault(length if of_one_length else 0, []).append(place)
    batches = [
        [places[index] for index in batch]
        for _, places in sorted(groups.items(), reverse=True)
        for batch in cut_batches([num_samples[place] for place in places], max_samples)
    ]
    return share_evenly(batches, at_once)


def would_wait(padded: Sequence[int], at_once: int) -> bool:
    """Return whether concurrent passes would leave threads idle for longer than sequential passes lose.

    Args:
        padded: padded samples of each pass, in order.
        at_once: number of concurrent passes; a new pass starts when one ends.
    """
    ends = [0] * at_once
    for samples in padded:
        heapq.heapreplace(ends, ends[0] + samples)
    return max(ends) * at_once > ALL_THREADS_COST * sum(padded)


def windowing_of(checkpoint: CheckpointSummary, *, window_seconds: float, overlap_seconds: float) -> Windowing:
    """Return the division of rows: at quiet points for checkpoints with a text decoder, else with overlaps.

    Raises:
        ValueError: a window would be shorter than one frame of the model.
    """
    return Windowing.of(
        sample_rate=checkpoint.sample_rate,
        frame_stride=checkpoint.frame_stride,
        min_samples=checkpoint.receptive_samples,
        window_seconds=window_seconds,
        overlap_seconds=overlap_seconds,
        at_quiet_points=checkpoint.writes_text,
        least_samples=checkpoint.min_samples,
        group_frames=max(1, checkpoint.hidden_stride // checkpoint.frame_stride),
    )


# In float32 the last bits of a matrix product depend on its number of rows, but never change a label. In half
# precision they can: the kernel for more rows sums in another order, and after rounding to eight bits another token
# may win (docs/decisions/013 has the measurements). TF32, float32 whose products round their inputs to ten bits, is
# treated as half precision. `raysp.models.base.placing` sets the flags of both.
HALF = ("bfloat16", "float16")
EIGHT_BITS = ("int8", "int8_float32", "int8_float16")
WEIGHT_BYTES = {**dict.fromkeys(HALF, 2), **dict.fromkeys(EIGHT_BITS, 1)}
"""Bytes of a weight by dtype; 4 for any other dtype."""
ROUNDED = (*HALF, "tf32", *EIGHT_BITS)
"""Arithmetic in which products round their inputs, so that the kernel for another batch may change a label."""
AGREED_RATE = 0.9
"""Least share of equal sampled rows that `verify` accepts in half precision and TF32.

Measured: 0.992 between bfloat16 in batches and alone, 0.983 to 1.0 between bfloat16 and float32 (short texts). Labels
of other rows or of another checkpoint mostly differ.
"""
DIGITS = {"float32": 3, "bfloat16": 1, "float16": 2, "tf32": 2, **dict.fromkeys(EIGHT_BITS, 1)}
"""Digits to which numbers of two labellings agree, by dtype: the tolerance, relative or absolute, is 10**-digits."""


class Batching(StrEnum):
    """Batching of windows."""

    FREE = "in batches of any size"
    """Labels do not depend on the batch."""
    ALONE = "each window alone"
    """One window per pass: half precision on a CPU, by one thread for models of raysp; and models of other libraries
    for which padded batches are not known to be exact. Labels depend neither on the other windows nor on the number of
    threads."""
    RECORDED = "in batches of the recorded budget"
    """Labels may depend on the batch, so the budget is part of the fingerprint."""


def batching(*, dtype: str, device: str, windows_alone: bool = False) -> Batching:
    """Return the batching of windows for a precision and a device.

    Args:
        dtype: dtype of weights and arithmetic.
        device: name of a torch device.
        windows_alone: whether padding may change a label of the model.
    """
    if windows_alone:
        return Batching.ALONE
    if dtype not in ROUNDED:
        return Batching.FREE
    if is_accelerator(device):
        return Batching.RECORDED
    return Batching.FREE if dtype in EIGHT_BITS else Batching.ALONE  # a backend of eight bits decodes each row alone


def most_unequal(num_rows: int, dtype: str) -> int:
    """Return the number of rows that may differ when labelled again: 0 in float32, else at least 1."""
    return max(1, int(num_rows * (1 - AGREED_RATE) + 1e-9)) if dtype in ROUNDED else 0


BLOCK_WORK_SECONDS = 10.0
"""Compute time of a block: long compared with the engine's overhead per block, short compared with a run."""
CPU_BATCH_SECONDS = 15.0
"""On a CPU a pass has a negligible fixed cost, so a larger batch only adds padding (docs/evidence/performance.md)."""
USUAL_FRAMES_A_SECOND = 50
"""Frames per second of the layers of most models; SEW-D and FastConformer have fewer."""
COARSE_BATCH_FRAMES = 1500
"""Frames of a pass on a CPU for layers with fewer frames per second: a product of few rows is slower."""
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


def passes_of_actor(threads: int | None, batching: Batching, *, is_own: bool = True) -> int:
    """Return the number of forward passes that an actor runs at once; with single windows, one per thread.

    On CPUs batches share the threads equally. Passes of one thread each do not wait for each other, as the threads of
    one pass do after every operation. With two threads or more there are several passes: the largest number among
    those that leave the fewest threads unused.

    Args:
        threads: torch threads on CPUs; None: one pass at a time, as on a GPU.
        batching: batching of windows.
        is_own: whether raysp implements the model; a model of another library may not allow concurrent passes.
    """
    if threads is None or not is_own:
        return 1
    if batching is Batching.ALONE:
        return threads
    return max(range(min(threads, MOST_AT_ONCE), 0, -1), key=lambda n: (n > 1, n * (threads // n)))


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
    if on_gpu:
        most = GPU_TEXT_SECONDS if checkpoint.writes_text else GPU_BATCH_SECONDS
    else:
        is_coarse = checkpoint.hidden_stride * USUAL_FRAMES_A_SECOND > checkpoint.sample_rate
        coarse = COARSE_BATCH_FRAMES * checkpoint.hidden_stride / checkpoint.sample_rate if is_coarse else 0
        together = checkpoint.windows_together * checkpoint.padded_samples / checkpoint.sample_rate
        most = max(CPU_TEXT_SECONDS if checkpoint.writes_text else CPU_BATCH_SECONDS, coarse, together)
    if memory is None:
        return most
    itemsize = 2 if on_gpu else 4
    room = MEMORY_SHARE * memory - itemsize * checkpoint.num_parameters
    return max(LEAST_BATCH_SECONDS, min(most, room / at_once / (itemsize * checkpoint.activations_per_second)))


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
