"""Blocks and batches: recordings grouped by similar length to reduce padding; and packs, of windows end to end.

A block is the output of decoding and the input of one labelling task. A batch or a pack is one forward pass within a
block. None of them changes a label. Rows of packs are put into packs when blocks are cut, among all rows of a piece:
of few rows, or of rows of similar length, packs would not be full.
"""

import bisect
import heapq
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from raysp.audio.window_cuts import Windowing
from raysp.devices import is_accelerator
from raysp.models.kernels.pack_sizes import (
    ALIGNED_SAMPLES,
    PRODUCT_ROWS,
    most_rows,
    places_of_rows,
    slot_frames,
    whole_parts,
)
from raysp.models.summary import CheckpointSummary
from raysp.ops.precision import Batching

PASS_COST = 1 / 15
"""Fixed cost of a forward pass, as a share of a full batch; measured on a CPU."""
ALL_THREADS_COST = 1.2
"""Time of passes one after another with all threads, to that of equal passes at once; measured with two threads."""
PACK_SIZES = 4
"""Sizes of packs that are tried, from the largest one on."""
BLOCK_BYTES = 128 * 1024 * 1024
"""Largest number of bytes of samples in one block, as estimated from headers."""
CLAIMED_SHARE = 0.995
"""Share of a pack that rows are chosen for by their headers: decoded rows may be longer by a frame."""


@dataclass(frozen=True)
class PackLimits:
    """Limits of the packs that the rows of a block fill."""

    sample_rate: int
    stride: int
    """Samples from one frame of the encoder to the next."""
    max_samples: int
    """Limit of a pack, rounded up to whole products as in `Grouping.cut`."""


def cut_blocks(
    seconds: Sequence[float],
    *,
    block_seconds: float,
    bytes_per_second: float,
    kinds: Sequence[str] | None = None,
    packs: PackLimits | None = None,
) -> list[list[int]]:
    """Group recordings into blocks of similar length, the longest first; or into blocks of full packs.

    Args:
        seconds: estimated duration of each recording; 0 if unknown.
        block_seconds: largest duration of a block, unless a single recording is longer.
        bytes_per_second: bytes of samples per second of audio, to keep a block under `BLOCK_BYTES`.
        kinds: recordings of different kinds never share a batch, so those of a kind are together; None: one kind.
        packs: limits of the packs that windows go through the model in; None: they go in batches.

    Returns:
        Indexes into `seconds`, each in one block; at least one block, which may be empty. Those of a pack are together.
    """
    if packs is not None:
        return _blocks_of_packs(seconds, packs, block_seconds, BLOCK_BYTES / bytes_per_second, kinds)
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


def _blocks_of_packs(
    seconds: Sequence[float],
    limits: PackLimits,
    block_seconds: float,
    most_seconds: float,
    kinds: Sequence[str] | None,
) -> list[list[int]]:
    """Put recordings into packs, and group as many packs as `block_seconds` holds, at most `most_seconds`."""
    frames = [slot_frames(round(one * limits.sample_rate), limits.stride) for one in seconds]
    a_second = limits.sample_rate / limits.stride
    room = int(CLAIMED_SHARE * whole_parts(limits.max_samples // limits.stride))
    room = max([min(room, int(most_seconds * a_second)), *frames])
    packs: list[list[int]] = []
    for kind in sorted({*kinds}) if kinds else [""]:
        places = [i for i in range(len(seconds)) if not kinds or kinds[i] == kind]
        packs += [[places[i] for i in pack] for pack in fit_rows([frames[i] for i in places], room)]
    together = max(1, min(round(block_seconds * a_second / room), int(most_seconds * a_second / room)))
    return [[*itertools.chain(*packs[i : i + together])] for i in range(0, len(packs), together)] or [[]]


def cut_in_order(seconds: Sequence[float], *, most_seconds: float, most_rows: int) -> list[tuple[int, int]]:
    """Group neighbouring recordings, at most `most_rows` and, unless a single one is longer, `most_seconds`.

    Returns:
        First and end of each group; together all recordings, in order.
    """
    groups: list[tuple[int, int]] = []
    first, held = 0, 0.0
    for index, more in enumerate(seconds):
        if index > first and (held + more > most_seconds or index - first >= most_rows):
            groups.append((first, index))
            first, held = index, 0.0
        held += more
    return [*groups, (first, len(seconds))] if seconds else []


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


def of_longest_thread(padded: Sequence[int], at_once: int) -> int:
    """Return the padded samples or frames of the thread that has most.

    Args:
        padded: padded samples or frames of each pass, in their order.
        at_once: number of forward passes that run at once; each takes the next batch when it has ended one.
    """
    ends = [0] * at_once
    for samples in padded:
        heapq.heapreplace(ends, ends[0] + samples)
    return max(ends)


def would_wait(padded: Sequence[int], at_once: int) -> bool:
    """Return whether passes at once would leave threads idle for longer than passes one after another lose."""
    return of_longest_thread(padded, at_once) * at_once > ALL_THREADS_COST * sum(padded)


def fit_rows(frames: Sequence[int], size: int, rows: int | None = None) -> list[list[int]]:
    """Put rows into packs, each into the fullest with room, the longest first.

    Args:
        frames: frames of each row, with those of the gap behind it.
        size: frames of a pack.
        rows: most rows of a pack; None: any number.

    Returns:
        Indexes into `frames`, each in one pack.

    Raises:
        ValueError: a row is longer than a pack.
    """
    if frames and max(frames) > size:
        raise ValueError(f"a row takes {max(frames)} frames, expected at most the {size} of a pack")
    packs: list[list[int]] = []
    rooms: list[tuple[int, int]] = []  # frames that are left, and the pack; the fullest first
    for index in sorted(range(len(frames)), key=lambda i: (-frames[i], i)):
        place = bisect.bisect_left(rooms, (frames[index], 0))
        if place == len(rooms):
            left, pack = size, len(packs)
            packs.append([])
        else:
            left, pack = rooms.pop(place)
        packs[pack].append(index)
        if len(packs[pack]) != rows:
            bisect.insort(rooms, (left - frames[index], pack))
    return packs


def fit_in_order(frames: Sequence[int], size: int, rows: int | None = None) -> list[list[int]]:
    """Put rows into packs in their order: where rows are ordered by pack, as `cut_blocks` does, these packs."""
    groups = cut_in_order(frames, most_seconds=size, most_rows=rows or max(1, len(frames)))
    return [[*range(*group)] for group in groups]


def cut_packs(frames: Sequence[int], most_frames: int, at_once: int = 1) -> list[list[int]]:
    """Put rows into packs by `fit_in_order`, or by `fit_rows` with one of several sizes.

    Chooses the packs that take the least time, then those with the fewest frames of products.

    Args:
        frames: frames of each row, with those of the gap behind it.
        most_frames: frames of a pack, rounded up to whole products; those of the longest row if it is longer.
        at_once: number of packs that go through the model at once.

    Returns:
        Indexes into `frames`, each in one pack.
    """
    longest = max(frames, default=0)
    most = whole_parts(max(most_frames, longest))
    sizes = range(most, max(longest, PRODUCT_ROWS) - 1, -PRODUCT_ROWS)[:PACK_SIZES]
    cuts = [fit_in_order(frames, most), *(fit_rows(frames, size) for size in sizes)]

    def cost(packs: list[list[int]]) -> tuple[int, int]:
        computed = [whole_parts(sum(frames[row] for row in pack)) for pack in packs]
        return of_longest_thread(computed, at_once), sum(computed)

    return min((share_evenly(packs, at_once) for packs in cuts), key=cost)


def _cut_packs_of_one_size(frames: Sequence[int], most: int, rows: int) -> list[list[int]]:
    """Put rows into as few packs as `fit_in_order` or `fit_rows` needs; those longer than a pack go alone."""
    short = [row for row, count in enumerate(frames) if count <= most]
    fitting = [frames[row] for row in short]
    packs = min(fit_in_order(fitting, most, rows), fit_rows(fitting, most, rows), key=len)
    long = [[row] for row, count in enumerate(frames) if count > most]
    return [*long, *([short[place] for place in pack] for pack in packs)]


def pack_frames(checkpoint: CheckpointSummary, *, batch_seconds: float, window_seconds: float) -> int:
    """Return the frames of hidden states of each pack of a checkpoint on an accelerator: any window fits into it."""
    samples = round(max(batch_seconds, window_seconds) * checkpoint.sample_rate)
    return whole_parts(slot_frames(samples, checkpoint.hidden_stride))


def pack_size(
    batching: Batching, checkpoint: CheckpointSummary, *, device: str, batch_seconds: float, window_seconds: float
) -> int | None:
    """Return the frames that each pack has on a device; None on a CPU, and where windows go in batches."""
    if batching is not Batching.PACKED or not is_accelerator(device):
        return None
    return pack_frames(checkpoint, batch_seconds=batch_seconds, window_seconds=window_seconds)


@dataclass(frozen=True)
class Grouping:
    """Division of the windows of a block into forward passes."""

    batching: Batching
    stride: int
    """Samples from one frame of the encoder to the next."""
    at_once: int = 1
    """Passes that run at once."""
    of_one_length: bool = False
    """Whether each pass has windows of the same length."""
    size: int | None = None
    """Frames of each pack, as on an accelerator; None: as few whole products as its rows need."""

    @property
    def rows(self) -> int:
        """Most rows of a pack on an accelerator, whose tables have that size."""
        return most_rows(self.size or 0)

    @property
    def multiple(self) -> int:
        """Samples at whose multiples rows of a pack begin: on an accelerator at frames."""
        return ALIGNED_SAMPLES if self.size is None else self.stride

    def sizes(self, num_samples: Sequence[int]) -> dict[str, int]:
        """Return where rows of a pack begin, and on an accelerator its samples and places of rows, for `fill_pack`."""
        if self.size is None:
            return {"multiple": self.multiple}
        rows = places_of_rows(len(num_samples), self.frames(num_samples))
        return {"multiple": self.multiple, "samples": self.padded(num_samples), "rows": rows}

    @property
    def in_packs(self) -> bool:
        """Whether a pass is a pack, which one thread computes."""
        return self.batching is Batching.PACKED

    def cut(self, num_samples: Sequence[int], max_samples: int) -> list[list[int]]:
        """Group windows into passes of at most `max_samples`, unless a single window is longer.

        The limit of a pack is rounded up to whole products, whose frames are computed anyway, but to `size` at most.

        Returns:
            Indexes into `num_samples`, each in one pass, the longest window of a batch first.
        """
        if not self.in_packs:
            most = 0 if self.batching is Batching.ALONE else max_samples
            return cut_passes(num_samples, most, self.at_once, of_one_length=self.of_one_length)
        slots = self._slots(num_samples)
        if self.size is None:
            return cut_packs(slots, max_samples // self.stride, self.at_once)
        return _cut_packs_of_one_size(slots, self._most_frames(max_samples), self.rows)

    def counted(self, num_samples: Sequence[int]) -> int:
        """Return the samples of a pass that its budget limits."""
        return sum(num_samples) if self.in_packs else num_samples[0] * len(num_samples)

    def exceeds(self, num_samples: Sequence[int], max_samples: int) -> bool:
        """Return whether a pass has more samples than `cut` puts into one."""
        if not self.in_packs:
            return self.counted(num_samples) > max_samples
        slots = self._slots(num_samples)
        most = self._most_frames(max_samples)
        if self.size is None:
            return sum(slots) > max(most, whole_parts(max(slots)))
        return sum(slots) > most or len(slots) > self.rows

    def padded(self, num_samples: Sequence[int]) -> int:
        """Return the samples of a pass with those of padding."""
        return self.stride * self.frames(num_samples) if self.in_packs else self.counted(num_samples)

    def frames(self, num_samples: Sequence[int]) -> int:
        """Return the frames of a pack of windows: `size`, unless one longer than that needs a size of its own."""
        return max(self.size or 0, whole_parts(sum(self._slots(num_samples))))

    def _most_frames(self, max_samples: int) -> int:
        """Return the most frames that windows take of a pack."""
        most = whole_parts(max_samples // self.stride)
        return most if self.size is None else min(most, self.size)

    def _slots(self, num_samples: Sequence[int]) -> list[int]:
        """Return the frames of a pack that each window takes."""
        return [slot_frames(count, self.stride) for count in num_samples]

    def would_wait(self, padded: Sequence[int]) -> bool:
        """Return whether passes at once leave threads idle for longer than one after another, with all threads."""
        return not self.in_packs and would_wait(padded, self.at_once)

    def threads_each(self, threads: int | None) -> int | None:
        """Return the threads of each of the passes at once, one of a pack; None: those of the calling thread."""
        if self.in_packs:
            return 1  # the last bits of a value may depend on the number of threads
        return None if threads is None else threads // self.at_once


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
