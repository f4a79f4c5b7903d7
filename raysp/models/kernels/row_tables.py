"""Places of the rows of a pack on its device, and layers and sums over all of them in one launch.

All tensors have sizes that a pack's rows do not change, but for the places of attention (`RowTables.blocks`). Between
rows and behind them frames have any values, which `RowLayout.spread` keeps away from the frames of rows. A function of
frames that reads neighbours is applied to all rows at once, with zeros between them, as it pads a row alone. A sum over
a row is taken in the order of its frames, from its own start on. So values of a row depend neither on its place nor on
other rows.

Legend: R rows that a pack may have, N frames of a pack, L places of a layout, Q blocks of them, H hidden, I inputs of a
frame, C channels.
"""

from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

Count = TypeVar("Count", int, Tensor)

CHUNK_FRAMES = 16
"""Frames of a row whose sum is added to those before them."""


class RowTables:
    """Places of the rows of a pack; those that it does not have are behind it and have no frames.

    Args:
        begins_R: first frame of each row.
        counts_R: frames of each row.
        slots_R: frames from the start of each row to that of the next.
        size: frames of the pack.
        keys_R: frames of each row that are attended to and pooled; None: all.
        attended_rows: rows, the first ones, that attention has places for; those behind them have no frames. None: all.
    """

    def __init__(
        self,
        begins_R: Tensor,
        counts_R: Tensor,
        slots_R: Tensor,
        size: int,
        keys_R: Tensor | None = None,
        attended_rows: int | None = None,
    ) -> None:
        self.begins_R, self.counts_R, self.slots_R, self.size = begins_R, counts_R, slots_R, size
        self.attended_rows = attended_rows or len(begins_R)
        self.keys_R = counts_R if keys_R is None else keys_R
        self.rows_N = _rows_at(begins_R, size)
        """Row of each frame: the last one that begins there or before."""
        self.offsets_N = torch.arange(size, device=begins_R.device) - begins_R.index_select(0, self.rows_N)
        """Number of each frame within its row."""
        self.inside_N = self.offsets_N < counts_R.index_select(0, self.rows_N)
        """True for frames of rows."""
        self.valid_N = self.inside_N if keys_R is None else self.offsets_N < keys_R.index_select(0, self.rows_N)
        """True for frames that are attended to and pooled."""
        self._layouts: dict[tuple[int, int, int], RowLayout] = {}

    @classmethod
    def of(cls, counts_R: Tensor, slots_R: Tensor, size: int, attended_rows: int | None = None) -> "RowTables":
        """Place rows of `counts_R` frames at the starts of slots of `slots_R` frames, integers on the device."""
        return cls(_begins(slots_R), counts_R, slots_R, size, attended_rows=attended_rows)

    @property
    def num_rows(self) -> int:
        """Number of rows that a pack may have."""
        return len(self.begins_R)

    def with_keys(self, keys_R: Tensor) -> "RowTables":
        """Return the places with other numbers of frames that are attended to and pooled."""
        return RowTables(self.begins_R, self.counts_R, self.slots_R, self.size, keys_R, self.attended_rows)

    def with_counts(self, counts_R: Tensor) -> "RowTables":
        """Return rows of other numbers of frames that begin at the same places; all frames are attended to."""
        return RowTables(self.begins_R, counts_R, self.slots_R, self.size, attended_rows=self.attended_rows)

    def scaled(self, factor: int, counts_R: Tensor) -> "RowTables":
        """Return the places where each frame becomes `factor` frames, of which each row has `counts_R`."""
        size = self.size * factor
        return RowTables(
            self.begins_R * factor, counts_R, self.slots_R * factor, size, attended_rows=self.attended_rows
        )

    def layout(self, gap: int = 0, multiple: int = 1) -> "RowLayout":
        """Return rows with at least `gap` frames behind each, each at a multiple of `multiple`; made once."""
        return self._layout(gap, multiple, self.num_rows)

    def blocks(self, size: int) -> "RowLayout":
        """Return rows beginning at blocks of `size` places, for attention, whose program is the same for any number."""
        return self._layout(0, size, self.attended_rows)

    def _layout(self, gap: int, multiple: int, num_rows: int) -> "RowLayout":
        form = gap, multiple, num_rows
        if form not in self._layouts:
            self._layouts[form] = RowLayout(self, *form)
        return self._layouts[form]


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
        num_rows: rows that there are places for; the others have no frames.
    """

    def __init__(self, tables: RowTables, gap: int, multiple: int, num_rows: int) -> None:
        self._tables, self._multiple = tables, multiple
        self.length = _rounded(tables.size + num_rows * (gap + multiple - 1), multiple)
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
        """Return frames at the places of the layout (1, L, H); places behind a row repeat its first frame."""
        return x_1NH.index_select(1, self.frames_L)

    def spread(self, x_1NH: Tensor) -> Tensor:
        """Return frames at the places of the layout (1, L, H), with zeros behind rows."""
        return self.taken(x_1NH).masked_fill_(self.outside_L[:, None], 0.0)

    def back(self, y_1LH: Tensor) -> Tensor:
        """Return the frames of a pack (1, N, H) from their places in the layout; frames of no row are undefined."""
        return y_1LH.index_select(1, self.places_N)


def _begins(rooms_R: Tensor) -> Tensor:
    return rooms_R.cumsum(0) - rooms_R


def _rows_at(begins_R: Tensor, length: int) -> Tensor:
    """Return the last row that begins at each place or before it."""
    return torch.searchsorted(begins_R[1:], torch.arange(length, device=begins_R.device), right=True)


def _rounded(count: Count, multiple: int) -> Count:
    """Round up to a multiple."""
    return count if multiple == 1 else (count + (multiple - 1)) // multiple * multiple


def with_gaps(mix: Callable[[Tensor], Tensor], x_1SC: Tensor, tables: RowTables, reach: int) -> Tensor:
    """Apply a function to rows with zeros between them.

    Args:
        mix: function of inputs (1, L * I, C), which returns some outputs for each I inputs.
        x_1SC: inputs, I of each frame; those that are no row's may have any value.
        tables: places of the rows.
        reach: inputs before and behind one that the function reads.

    Returns:
        The outputs of each frame (1, N * outputs, C); those of frames that are no row's are undefined.
    """
    inputs, channels = x_1SC.shape[1] // tables.size, x_1SC.shape[2]
    layout = tables.layout(gap=-(-reach // inputs))
    spread_1LC = layout.spread(x_1SC.reshape(1, tables.size, inputs * channels))
    y_1LC = mix(spread_1LC.view(1, -1, channels))
    return layout.back(y_1LC.reshape(1, layout.length, -1)).view(1, -1, y_1LC.shape[2])


def strided(mix: Callable[[Tensor], Tensor], x_1NC: Tensor, tables: RowTables, stride: int, padding: int) -> Tensor:
    """Apply a strided convolution to rows with zeros between them.

    Args:
        mix: function of frames (1, L, C), of which an output reads `padding` frames before each `stride`-th one.
        x_1NC: frames; those that are no row's may have any value.
        tables: places of the rows.
        stride: frames from one output to the next.
        padding: zeros before a row that the function reads.

    Returns:
        The outputs (1, N, ...), a row's from where it begins in `x_1NC` on; behind them they are undefined.
    """
    layout = tables.layout(gap=padding, multiple=stride)
    y_1MC = mix(layout.spread(x_1NC))
    places_N = (layout.begins_R // stride)[tables.rows_N] + tables.offsets_N
    return y_1MC.index_select(1, places_N.clamp(max=y_1MC.shape[1] - 1))


def of_slots(tables: RowTables) -> RowTables:
    """Return rows that have all frames up to the next, for inputs that are zero behind a row within its last frame."""
    return RowTables.of(tables.slots_R, tables.slots_R, tables.size)


def inputs_inside(num_inputs_R: Tensor, tables: RowTables, inputs: int) -> Tensor:
    """Return inside_NI, True for the first so many inputs of each row, of which a frame has `inputs`."""
    left_N = num_inputs_R[tables.rows_N] - tables.offsets_N * inputs
    return torch.arange(inputs, device=num_inputs_R.device) < left_N[:, None]


def row_sums(x_N: Tensor, tables: RowTables) -> Tensor:
    """Return sums (R, ...) over the frames of each row of values (N, ...), zero for frames that are no row's.

    A thread adds the values of a row one after another; zeros behind them change no bit.
    """
    return _reduced(x_N, "sum", tables.begins_R, tables.slots_R)


def row_maxima(x_NC: Tensor, tables: RowTables) -> Tensor:
    """Return maxima (R, C) over the frames of each row that are pooled; 0 for a row without any."""
    highest_RC = _reduced(
        x_NC.masked_fill(~tables.valid_N[:, None], -torch.inf), "max", tables.begins_R, tables.slots_R
    )
    return highest_RC.masked_fill_((tables.keys_R == 0)[:, None], 0.0)


def pooled_sums(x_1NC: Tensor, counts_R: Tensor, tables: RowTables, firsts_R: Tensor | None = None) -> Tensor:
    """Return float32 sums (R, C) over the first `counts_R` frames of each row; all other frames may have any value.

    Frames of a chunk are added to each other, and chunks from the start of the row on one after another. With
    `firsts_R`, frames before these count as zeros.
    """
    layout = tables.layout(multiple=CHUNK_FRAMES)
    outside_L = layout.offsets_L >= counts_R.index_select(0, layout.rows_L)
    if firsts_R is not None:
        outside_L |= layout.offsets_L < firsts_R.index_select(0, layout.rows_L)
    x_LC = layout.taken(x_1NC)[0].masked_fill_(outside_L[:, None], 0.0)
    chunks_MC = x_LC.view(-1, CHUNK_FRAMES, x_LC.shape[1]).sum(1, dtype=torch.float32)
    num_chunks_R = _rounded(tables.slots_R, CHUNK_FRAMES) // CHUNK_FRAMES
    return _reduced(chunks_MC, "sum", layout.begins_R // CHUNK_FRAMES, num_chunks_R)


def pooled_means(x_1NC: Tensor, counts_R: Tensor, tables: RowTables) -> Tensor:
    """Return means (R, C) over the frames of `pooled_sums`, zero for a row without any."""
    return (pooled_sums(x_1NC, counts_R, tables) / counts_R.clamp(min=1)[:, None]).to(x_1NC.dtype)


def _reduced(x_N: Tensor, by: str, begins_R: Tensor, slots_R: Tensor) -> Tensor:
    ends_1 = begins_R[-1:] + slots_R[-1:]
    return torch.segment_reduce(x_N, by, offsets=torch.cat([begins_R, ends_1]), axis=0, unsafe=True)


def centred(x_NIC: Tensor, num_inputs_R: Tensor, tables: RowTables) -> tuple[Tensor, Tensor]:
    """Return inputs less the mean of their row, zero outside of rows, and the sums of their squares (R, C).

    Sums are in float64.
    """
    outside_NI1 = ~inputs_inside(num_inputs_R, tables, x_NIC.shape[1])[:, :, None]
    x_NIC = x_NIC.masked_fill(outside_NI1, 0.0)
    total_RC = row_sums(x_NIC.sum(1, dtype=torch.float64), tables)
    mean_RC = (total_RC / num_inputs_R.clamp(min=1)[:, None]).to(x_NIC.dtype)
    centred_NIC = (x_NIC - mean_RC[tables.rows_N][:, None]).masked_fill(outside_NI1, 0.0)
    return centred_NIC, row_sums(centred_NIC.square().sum(1, dtype=torch.float64), tables)
