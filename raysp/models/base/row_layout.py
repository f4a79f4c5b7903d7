"""How rows lie in a tensor: their lengths on the host, and a mask where there is padding.

A `Layout` is made once from a model's input, follows the rows through strided layers, and is passed to every layer.

Legend: B rows, T frames of the longest row, N frames of all rows, H width.
"""

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import Tensor

from raysp.models.base.kernels import filled

Count = TypeVar("Count", int, Tensor)
"""A number of samples or frames on the host, or one for each row on a device."""


@dataclass(frozen=True, eq=False)
class Layout:
    """Rows side by side with padding after their ends, (B, T), or end to end without it, (1, N).

    Rows end to end are filled up with frames of zeros, to a number that matrix products are fast at (`filled`).
    """

    num_rows: int
    num_frames: int
    """T: frames of the longest row, padding included."""
    lengths: tuple[int, ...] | None
    """Frames of each row; None: only the device of the rows has their number."""
    counts_B: Tensor | None
    """Frames of each row, on the device of the rows; None: no row is padded."""
    is_packed: bool = False
    """Whether the rows are end to end."""
    num_next: int = 0
    """Frames of its padding that each packed row keeps: queries, but no keys, of attention."""

    @classmethod
    def of(cls, inputs: Tensor, mask: "Tensor | Layout | None") -> "Layout":
        """Return the layout of inputs (B, T, ...) by a mask (B, T), nonzero for inputs of the row, which come first."""
        if isinstance(mask, Layout):
            return mask
        if mask is None:
            num_rows, num_frames = inputs.shape[:2]
            return cls(num_rows, num_frames, (num_frames,) * num_rows, None)
        return cls.of_counts(mask.sum(-1), inputs.shape[1])

    @classmethod
    def of_counts(cls, counts_B: Tensor, num_frames: int, lengths: Sequence[int] | None = None) -> "Layout":
        """Return the layout of rows by their frames, at most `num_frames`, on their device.

        `lengths` are the same numbers on the host.
        """
        if lengths is None:
            if counts_B.device.type != "cpu":
                return cls(len(counts_B), num_frames, None, counts_B)
            lengths = counts_B.tolist()
        is_padded = any(length < num_frames for length in lengths)
        return cls(len(lengths), num_frames, tuple(lengths), counts_B if is_padded else None)

    def after(self, count: Callable[[Any], Any], num_frames: int) -> "Layout":
        """Return the layout of the frames of strided layers, by the function that counts them."""
        if self.counts_B is None:
            return Layout(self.num_rows, num_frames, (num_frames,) * self.num_rows, None)
        lengths = self.lengths and [max(0, min(int(count(length)), num_frames)) for length in self.lengths]
        return Layout.of_counts(count(self.counts_B).clamp(0, num_frames), num_frames, lengths)

    def counts(self, device: torch.device) -> Tensor:
        """Return the frames of each row, (B,)."""
        if self.counts_B is not None:
            return self.counts_B
        return torch.full((self.num_rows,), self.num_frames, device=device)

    @property
    def host_lengths(self) -> Sequence[int]:
        """Frames of each row; waits for a device that alone has them."""
        if self.lengths is not None:
            return self.lengths
        return self.counts(torch.device("cpu")).tolist()

    def valid(self, device: torch.device) -> Tensor:
        """Return a mask (B, T) of the frames of rows side by side."""
        return torch.arange(self.num_frames, device=device) < self.counts(device)[:, None]

    @cached_property
    def mask(self) -> Tensor | None:
        """True where a frame is part of its row, of the shape of the frames; None: everywhere."""
        if self.counts_B is None or (self.is_packed and not self.num_next):
            return None
        return self.pack(self.valid(self.counts_B.device))

    @cached_property
    def keys(self) -> Tensor | None:
        """Mask of the frames that are attended to; None: all of them, and of packed rows each by itself."""
        if self.counts_B is None or self.is_packed:
            return None
        valid_BT = self.valid(self.counts_B.device)
        # A row without frames needs a key, or it would be NaN.
        first_T = torch.arange(self.num_frames, device=valid_BT.device) == 0
        return (valid_BT | first_T)[:, None, None]

    def zeroed(self, x_BTH: Tensor) -> Tensor:
        """Return frames with zeros in padding."""
        return x_BTH if self.mask is None else x_BTH.masked_fill(~self.mask[:, :, None], 0.0)

    def packed(self, like: Tensor, *, num_next: int = 0) -> "Layout":
        """Return the rows end to end on a CPU without gradients, where padding then costs nothing; else as they are."""
        if like.device.type != "cpu" or torch.is_grad_enabled() or self.num_rows == 0:
            return self
        return replace(self, is_packed=True, num_next=num_next)

    @cached_property
    def places(self) -> list[slice]:
        """Place of each row in the packed frames; all frames of rows side by side."""
        if not self.is_packed:
            return [slice(0, self.num_frames)]
        sizes = [min(length + self.num_next, self.num_frames) for length in self.host_lengths]
        begins = itertools.accumulate(sizes, initial=0)
        return [slice(begin, begin + size) for begin, size in zip(begins, sizes, strict=False)]

    @cached_property
    def queries_and_keys(self) -> list[tuple[slice, slice]]:
        """Places of the queries and keys of each attention; a row without frames has one key, if it has a query."""
        lengths = self.host_lengths if self.is_packed else (self.num_frames,)
        ends = [place.start + max(1, length) for place, length in zip(self.places, lengths, strict=True)]
        return [(place, slice(place.start, min(place.stop, end))) for place, end in zip(self.places, ends, strict=True)]

    def pack(self, x_BTH: Tensor) -> Tensor:
        """Return frames side by side as this layout has them; the last axis may be missing."""
        if not self.is_packed:
            return x_BTH
        return self.joined(row[None, : place.stop - place.start] for row, place in zip(x_BTH, self.places, strict=True))

    def unpack(self, x: Tensor) -> Tensor:
        """Return frames of this layout padded side by side; padding of packed frames becomes zero."""
        if not self.is_packed:
            return x
        x_BTH = x.new_zeros(self.num_rows, self.num_frames, x.shape[-1])
        for row_TH, place in zip(x_BTH, self.places, strict=True):
            row_TH[: place.stop - place.start] = x[0, place]
        return x_BTH

    def mixed(self, mix: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """Apply a function that mixes frames and keeps their number: to the batch, or to each packed row."""
        return self.joined(mix(x[:, place]) for place in self.places)

    def joined(self, parts: Iterable[Tensor]) -> Tensor:
        """Return the frames of `places`: of rows (1, T, ...), whose first axis may have any size, or of all of them."""
        parts = [*parts]
        if not self.is_packed:
            return parts[0]
        total, like = self.places[-1].stop, parts[0]
        return torch.cat([*parts, like.new_zeros(len(like), filled(total) - total, *like.shape[2:])], dim=1)
