"""Rows of different length packed end to end, so that frame-wise layers do no work on padding; or their mask.

Layers that mix frames process row by row. Frames of zeros fill up the packed rows, to a number that matrix products are
fast at (`dense.filled`) or to the one size of all packs, of which a row's values then do not depend.

Legend: B batch, T frames, N frames of all rows, H hidden.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from raysp.models.kernels.dense import filled
from raysp.models.kernels.pack_sizes import usual_frames
from raysp.models.kernels.row_tables import RowTables, with_gaps


@dataclass(frozen=True)
class Packing:
    """Number of frames of each row, and of rows with padding."""

    counts: tuple[int, ...]
    num_frames: int
    keeps_next: bool = False
    """Whether a row is packed with the first frame of its padding, for models whose labels include it."""
    slots: tuple[int, ...] | None = None
    """Frames from the start of each row to that of the next; None: no zeros between rows."""
    size: int | None = None
    """Packed frames of a pass; None: as few as matrix products are fast at."""
    keys: tuple[int, ...] | None = None
    """Frames of each row that are attended to and pooled; None: `counts`."""
    tables: RowTables | None = None
    """The same places on a device, where layers take all rows at once; None: they take one after another."""

    @classmethod
    def of(cls, hidden_BTH: Tensor, valid_BT: Tensor | None, *, keeps_next: bool = False) -> "Packing":
        """Count the frames of rows padded at the end; None: no row is padded."""
        batch, num_frames, _ = hidden_BTH.shape
        counts = [num_frames] * batch if valid_BT is None else valid_BT.sum(-1).tolist()
        return cls(tuple(counts), num_frames, keeps_next)

    @classmethod
    def in_slots(
        cls, counts: Sequence[int], slots: Sequence[int], size: int, tables: RowTables | None = None
    ) -> "Packing":
        """Place rows of `counts` frames at the beginnings of slots, in a pass of `size` frames.

        Raises:
            ValueError: A row is longer than its slot, or the slots are longer than the pass.
        """
        if any(count > slot for count, slot in zip(counts, slots, strict=True)) or sum(slots) > size:
            raise ValueError(f"rows of {[*counts]} frames, in slots of {[*slots]}, do not fit into {size} frames")
        return cls(tuple(counts), max(counts, default=0), slots=tuple(slots), size=size, tables=tables)

    @property
    def num_keys(self) -> tuple[int, ...]:
        """Number of frames of each row that are attended to and pooled."""
        return self.counts if self.keys is None else self.keys

    @property
    def sizes(self) -> list[int]:
        """Number of packed frames of each row."""
        return [min(count + self.keeps_next, self.num_frames) for count in self.counts]

    @cached_property
    def places(self) -> list[slice]:
        """Place of each row in the packed frames."""
        begins = itertools.accumulate(self.slots or self.sizes, initial=0)
        return [slice(begin, begin + size) for begin, size in zip(begins, self.sizes, strict=False)]

    def rows(self, x_1NH: Tensor) -> Iterator[Tensor]:
        """Yield the frames (1, size, H) of each row, views."""
        for place in self.places:
            yield x_1NH[:, place]

    def attended(self, x_1NH: Tensor) -> Iterator[Tensor]:
        """Yield the frames (1, keys, H) of each row that are attended to and pooled, views."""
        for place, keys in zip(self.places, self.num_keys, strict=True):
            yield x_1NH[:, place.start : place.start + keys]

    def mixed(self, mix: Callable[[Tensor], Tensor], x_1NH: Tensor, reach: int) -> Tensor:
        """Apply a function of a row's frames (1, T, H), which keeps their number, to each row.

        In a pack zeros fill up each row first, see `in_usual_frames`. With tables rows are as one, with zeros between
        them: `reach` is the number of frames before or behind one that the function reads.
        """
        if self.tables is not None:
            return with_gaps(lambda x_1LH: mix(x_1LH)[:, : x_1LH.shape[1]], x_1NH, self.tables, reach)
        rows = ((row_1TH, in_usual_frames(row_1TH) if self.slots else row_1TH) for row_1TH in self.rows(x_1NH))
        return self.joined(mix(given_1TH)[:, : row_1TH.shape[1]] for row_1TH, given_1TH in rows)

    def valid(self, like: Tensor) -> Tensor:
        """Return valid_1N, True for frames that are attended to, on the device of a tensor."""
        if self.tables is not None:
            return self.tables.valid_N[None]
        ones = [like.new_ones(1, keys, dtype=torch.bool) for keys in self.num_keys]
        return replace(self, counts=self.num_keys, slots=self.slots or tuple(self.sizes)).joined(ones)

    def pack(self, x_BTH: Tensor) -> Tensor:
        """Return x_1NH without padding, or x_1N for x_BT."""
        return self.joined(row[None, :size] for row, size in zip(x_BTH, self.sizes, strict=True))

    def joined(self, rows: Iterable[Tensor]) -> Tensor:
        """Return x_1NH of rows (1, size, H), filled up with zeros; the first and last axis may have any size."""
        parts = [*rows]
        total, like = sum(self.sizes), parts[0]
        if self.slots is None:
            fillers = like.new_zeros(len(like), filled(total) - total, *like.shape[2:])
            return torch.cat([*parts, fillers], dim=1)
        size = self.size or filled(sum(self.slots))
        ends = [begin.start for begin in self.places[1:]] + [size]
        gaps = [end - place.stop for place, end in zip(self.places, ends, strict=True)]
        zeros = like.new_zeros(len(like), max(gaps), *like.shape[2:])
        return torch.cat([one for part, gap in zip(parts, gaps, strict=True) for one in (part, zeros[:, :gap])], dim=1)

    def unpack(self, x_1NH: Tensor) -> Tensor:
        """Return x_BTH with zeros for padding."""
        x_BTH = x_1NH.new_zeros(len(self.counts), self.num_frames, x_1NH.shape[-1])
        for row_TH, place in zip(x_BTH, self.places, strict=True):
            row_TH[: place.stop - place.start] = x_1NH[0, place]
        return x_BTH


def can_pack(hidden_BTH: Tensor, valid_BT: Tensor | None, exact: bool) -> bool:
    """Return whether rows can be packed: on a CPU, without gradients, and if padding needs no values."""
    if torch.compiler.is_compiling():  # a compiled program for any lengths has padding
        return False
    is_plain = hidden_BTH.device.type == "cpu" and not torch.is_grad_enabled() and len(hidden_BTH) > 0
    return is_plain and (exact or valid_BT is None)


def is_known_to_be_full(valid_BT: Tensor) -> bool:
    """Return whether a mask has no zeros; False if unknown: on a GPU, or in a compiled program."""
    return valid_BT.device.type == "cpu" and not torch.compiler.is_compiling() and bool(valid_BT.all())


def attended_keys(valid_BT: Tensor) -> Tensor | None:
    """Return the mask of attended frames, or None if all are (never waits for a GPU)."""
    if is_known_to_be_full(valid_BT):
        return None
    first_T = torch.arange(valid_BT.shape[1], device=valid_BT.device) == 0
    return (valid_BT | first_T)[:, None, None]  # a row without frames needs a key, or it would be NaN


def in_usual_frames(row_1TH: Tensor) -> Tensor:
    """Return a row with zeros behind it, to a number of frames that recurs, which depends on the row alone."""
    num_frames = row_1TH.shape[1]
    return F.pad(row_1TH, (0, 0, 0, usual_frames(num_frames) - num_frames))
