"""Blocks and batches: recordings grouped by similar length to reduce padding.

A block is the output of decoding and the input of one labelling task. A batch is one forward pass within a block.
Neither changes a label.
"""

import heapq
from collections.abc import Sequence

import numpy as np

from raysp.audio.waveforms import Windowing
from raysp.models.labelled_passes import CheckpointSummary

PASS_COST = 1 / 15
"""Fixed cost of a forward pass, as a share of a full batch; measured on a CPU."""
ALL_THREADS_COST = 1.2
"""Time of passes one after another with all threads, to that of equal passes at once; measured with two threads."""
BLOCK_BYTES = 128 * 1024 * 1024
"""Largest number of bytes of samples in one block, as estimated from headers."""


def cut_blocks(
    seconds: Sequence[float],
    *,
    block_seconds: float,
    bytes_per_second: float,
    kinds: Sequence[str] | None = None,
) -> list[list[int]]:
    """Group recordings into blocks of similar length, the longest first.

    Args:
        seconds: estimated duration of each recording; 0 if unknown.
        block_seconds: largest duration of a block, unless a single recording is longer.
        bytes_per_second: bytes of samples per second of audio, to keep a block under `BLOCK_BYTES`.
        kinds: recordings of different kinds never share a batch, so those of a kind are together; None: one kind.

    Returns:
        Indexes into `seconds`, each in one block; at least one block, which may be empty.
    """
    most = min(block_seconds, BLOCK_BYTES / bytes_per_second)
    total = sum(seconds)
    # Blocks of equal size, instead of full ones and a remainder, keep the actors of a pool busy to the end.
    target = total / max(1, -(-total // most))
    order = sorted(range(len(seconds)), key=lambda i: (kinds[i] if kinds else "", -seconds[i], i))
    blocks: list[list[int]] = [[]]
    held = 0.0
    for index in order:
        # A thousandth of slack: sums of seconds round, and a block of the last row alone would be left over.
        if blocks[-1] and held + seconds[index] > target * 1.001:
            blocks.append([])
            held = 0.0
        blocks[-1].append(index)
        held += seconds[index]
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
    """Divide the last batches, so that as many passes as run at once have equal work.

    Args:
        batches: batches of about the same padded samples, the shortest windows last.
        at_once: number of forward passes that run at once.

    Returns:
        The batches. Those beyond a multiple of `at_once` are each divided into `at_once` parts, or one part a window.
    """
    whole = len(batches) - len(batches) % at_once
    parts = [batch[place::at_once] for batch in batches[whole:] for place in range(min(at_once, len(batch)))]
    return [*batches[:whole], *parts]


def cut_passes(
    num_samples: Sequence[int], max_samples: int, at_once: int, *, of_one_length: bool = False
) -> list[list[int]]:
    """Group the windows of a block into forward passes: `cut_batches`, with the last ones shared by `share_evenly`.

    `of_one_length`: each pass has windows of the same length.
    """
    if not of_one_length:
        return share_evenly(cut_batches(num_samples, max_samples), at_once)
    places: dict[int, list[int]] = {}
    for place, length in enumerate(num_samples):
        places.setdefault(length, []).append(place)
    batches = [
        [places[length][index] for index in batch]
        for length in sorted(places, reverse=True)
        for batch in cut_batches([length] * len(places[length]), max_samples)
    ]
    return share_evenly(batches, at_once)


def would_wait(padded: Sequence[int], at_once: int) -> bool:
    """Return whether passes at once would leave threads idle for longer than passes one after another lose.

    Args:
        padded: padded samples of each pass, in their order.
        at_once: number of forward passes that run at once; each takes the next batch when it has ended one.
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
        group_frames=max(1, checkpoint.hidden_stride // checkpoint.frame_stride),
    )
