"""Blocks and batches: how recordings of like length are brought together so that little is padded.

A block leaves decoding and is one task of a model; a batch is one forward pass inside a block. Neither changes a label.
"""

from collections.abc import Sequence

BLOCK_BYTES = 128 * 1024 * 1024
"""Most bytes of samples in one block, as estimated from headers."""


def cut_blocks(seconds: Sequence[float], *, block_seconds: float, bytes_per_second: float) -> list[list[int]]:
    """Cut recordings into blocks of like length, the longest first.

    Args:
        seconds: estimated duration of each recording; 0 where nothing is known.
        block_seconds: audio in a block, unless a single recording has more.
        bytes_per_second: of samples, to keep a block under `BLOCK_BYTES`.

    Returns:
        Indexes into `seconds`, each in one block; at least one block, which may be empty.
    """
    most = min(block_seconds, BLOCK_BYTES / bytes_per_second)
    total = sum(seconds)
    # Blocks of equal size, rather than full ones and a rest, keep the actors of a pool busy to the end.
    target = total / max(1, -(-total // most))
    order = sorted(range(len(seconds)), key=lambda i: (-seconds[i], i))
    blocks: list[list[int]] = [[]]
    held = 0.0
    for index in order:
        if blocks[-1] and held + seconds[index] > target * 1.001:
            blocks.append([])
            held = 0.0
        blocks[-1].append(index)
        held += seconds[index]
    return blocks


def cut_batches(num_samples: Sequence[int], max_samples: int) -> list[list[int]]:
    """Cut windows into batches of at most `max_samples` padded samples, the longest first.

    Args:
        num_samples: length of each window.
        max_samples: longest window times number of windows in a batch, unless a single one is longer.

    Returns:
        Indexes into `num_samples`, each in one batch.
    """
    batches: list[list[int]] = []
    longest = 0
    for index in sorted(range(len(num_samples)), key=lambda i: (-num_samples[i], i)):
        if not batches or longest * (len(batches[-1]) + 1) > max_samples:
            batches.append([])
            longest = num_samples[index]
        batches[-1].append(index)
    return batches
