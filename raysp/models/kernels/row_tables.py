"""Places of the rows of a pack on its device, so that what mixes frames is launched once for all of them.

All tensors have sizes that a pack's rows do not change. Between rows and behind them frames have any values, which
`RowLayout.spread` keeps away from the frames of rows.

Legend: R rows that a pack may have, N frames of a pack, L places of a layout, Q blocks of them, H hidden.
"""

from functools import cached_property
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

Count = TypeVar("Count", int, Tensor)


class RowTables:
    """Places of the rows of a pack; those that it does not have are behind it and have no frames.

    Args:
        begins_R: first frame of each row.
        counts_R: frames of each row.
        slots_R: frames from the begin of each row to that of the next.
        size: frames of the pack.
        keys_R: frames of each row that are attended to and pooled; None: all.
    """

    def __init__(
        self, begins_R: Tensor, counts_R: Tensor, slots_R: Tensor, size: int, keys_R: Tensor | None = None
    ) -> None:
        self.begins_R, self.counts_R, self.slots_R, self.size = begins_R, counts_R, slots_R, size
        self.keys_R = counts_R if keys_R is None else keys_R
        self.rows_N = _rows_at(begins_R, size)
        """Row of each frame: the last one that begins there or before."""
        self.offsets_N = torch.arange(size, device=begins_R.device) - begins_R.index_select(0, self.rows_N)
        """Number of each frame within its row."""
        self.inside_N = self.offsets_N < counts_R.index_select(0, self.rows_N)
        """True for frames of rows."""
        self.valid_N = self.inside_N if keys_R is None else self.offsets_N < keys_R.index_select(0, self.rows_N)
        """True for frames that are attended to and pooled."""
        self._layouts: dict[tuple[int, int], RowLayout] = {}

    @classmethod
    def of(cls, counts_R: Tensor, slots_R: Tensor, size: int) -> "RowTables":
        """Place rows of so many frames at the begins of slots; both are integers on the device."""
        return cls(_begins(slots_R), counts_R, slots_R, size)

    @property
    def num_rows(self) -> int:
        """Number of rows that a pack may have."""
        return len(self.begins_R)

    def with_keys(self, keys_R: Tensor) -> "RowTables":
        """Return the places with other numbers of frames that are attended to and pooled."""
        return RowTables(self.begins_R, self.counts_R, self.slots_R, self.size, keys_R)

    def scaled(self, factor: int, counts_R: Tensor) -> "RowTables":
        """Return places of rows of which each frame is `factor` frames, so many in each row."""
        return RowTables(self.begins_R * factor, counts_R, self.slots_R * factor, self.size * factor)

    def layout(self, gap: int = 0, multiple: int = 1) -> "RowLayout":
        """Return rows with at least `gap` frames behind each, each at a multiple of `multiple`; made once."""
        if (gap, multiple) not in self._layouts:
            self._layouts[gap, multiple] = RowLayout(self, gap, multiple)
        return self._layouts[gap, multiple]


class KeyBlocks(NamedTuple):
    """Blocks of places of a layout that are attended to from each block: all of its row, in order."""

    key_rows_L: Tensor
    """Row of the places that are attended to, at least the first of each row; -1 elsewhere."""
    numbers_Q: Tensor
    """Number of blocks, int32; 0 where no row has frames."""
    indices_QQ: Tensor
    """Their indices, int32; those behind the number do not count."""


class RowLayout:
    """Places of rows farther apart than in their pack.

    Args:
        tables: places in the pack.
        gap: least number of places behind each row that are of no row.
        multiple: number at whose multiples rows begin.
    """

    def __init__(self, tables: RowTables, gap: int, multiple: int) -> None:
        self._tables, self._multiple = tables, multiple
        self.length = _rounded(tables.size + tables.num_rows * (gap + multiple - 1), multiple)
        self.begins_R = _begins(_rounded(tables.slots_R + gap, multiple))
        self.rows_L = _rows_at(self.begins_R, self.length)
        places_L = torch.arange(self.length, device=self.begins_R.device)
        self.offsets_L = places_L - self.begins_R.index_select(0, self.rows_L)
        """Number of each place within its row."""
        self.outside_L = self.offsets_L >= tables.counts_R.index_select(0, self.rows_L)
        """True for places of no row."""
        own_L = self.offsets_L.masked_fill(self.outside_L, 0)
        self.frames_L = (tables.begins_R.index_select(0, self.rows_L) + own_L).clamp(max=tables.size - 1)
        """Frame of the pack at each place; behind a row its first frame."""
        moved_R = self.begins_R - tables.begins_R
        frames_N = torch.arange(tables.size, device=self.begins_R.device)
        self.places_N = (frames_N + moved_R.index_select(0, tables.rows_N)).clamp(max=self.length - 1)
        """Place of each frame of the pack."""

    @cached_property
    def key_blocks(self) -> KeyBlocks:
        """Blocks of `multiple` places."""
        size, rows_Q = self._multiple, self.rows_L[:: self._multiple]
        keys_R = self._tables.keys_R.clamp(min=1)
        numbers_Q = (_rounded(keys_R, size) // size).index_select(0, rows_Q).masked_fill(self.outside_L[::size], 0)
        first_Q = (self.begins_R // size).index_select(0, rows_Q)
        indices_QQ = first_Q[:, None] + torch.arange(len(rows_Q), device=rows_Q.device)
        key_rows_L = self.rows_L.masked_fill(self.offsets_L >= keys_R.index_select(0, self.rows_L), -1)
        return KeyBlocks(key_rows_L, numbers_Q.int(), indices_QQ.clamp(max=len(rows_Q) - 1).int())

    def taken(self, x_1NH: Tensor) -> Tensor:
        """Return the frames at their places (1, L, H); behind a row is its first frame."""
        return x_1NH.index_select(1, self.frames_L)

    def spread(self, x_1NH: Tensor) -> Tensor:
        """Return the frames at their places (1, L, H), zeros elsewhere."""
        return self.taken(x_1NH).masked_fill_(self.outside_L[:, None], 0.0)

    def back(self, y_1LH: Tensor) -> Tensor:
        """Return the frames of a pack (1, N, H) from their places; of no row they have any values."""
        return y_1LH.index_select(1, self.places_N)


def _begins(rooms_R: Tensor) -> Tensor:
    return rooms_R.cumsum(0) - rooms_R


def _rows_at(begins_R: Tensor, length: int) -> Tensor:
    """Return the last row that begins at each place or before it."""
    return torch.searchsorted(begins_R[1:], torch.arange(length, device=begins_R.device), right=True)


def _rounded(count: Count, multiple: int) -> Count:
    """Round up to a multiple."""
    return count if multiple == 1 else (count + (multiple - 1)) // multiple * multiple
