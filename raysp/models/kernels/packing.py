"""Rows of different length packed end to end, so that frame-wise layers do no work on padding; or their mask.

Layers that mix frames process row by row. Frames of zeros fill up the packed rows, to a number that matrix products are
fast at (`dense.filled`).

Legend: B batch, T frames, N frames of all rows, H hidden.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from raysp.models.kernels.dense import filled


@dataclass(frozen=True)
class Packing:
    """Number of frames of each row, and of rows with padding."""

    counts: tuple[int, ...]
    num_frames: int
    keeps_next: bool = False
    """Whether a row is packed with the first frame of its padding, for models whose labels include it."""

    @classmethod
    def of(cls, hidden_BTH: Tensor, valid_BT: Tensor | None, *, keeps_next: bool = False) -> "Packing":
        """Count the frames of rows padded at the end; None: no row is padded."""
        batch, num_frames, _ = hidden_BTH.shape
        counts = [num_frames] * batch if valid_BT is None else valid_BT.sum(-1).tolist()
        return cls(tuple(counts), num_frames, keeps_next)

    @property
    def sizes(self) -> list[int]:
        """Number of packed frames of each row."""
        return [min(count + self.keeps_next, self.num_frames) for count in self.counts]

    @cached_property
    def places(self) -> list[slice]:
        """Place of each row in the packed frames."""
        begins = itertools.accumulate(self.sizes, initial=0)
        return [slice(begin, begin + size) for begin, size in zip(begins, self.sizes, strict=False)]

    def rows(self, x_1NH: Tensor) -> Iterator[Tensor]:
        """Yield the frames (1, size, H) of each row, views."""
        for place in self.places:
            yield x_1NH[:, place]

    def mixed(self, mix: Callable[[Tensor], Tensor], x_1NH: Tensor) -> Tensor:
        """Apply a function of a row's frames (1, T, H), which keeps their number, to each row."""
        return self.joined(map(mix, self.rows(x_1NH)))

    def pack(self, x_BTH: Tensor) -> Tensor:
        """Return x_1NH without padding, or x_1N for x_BT."""
        return self.joined(row[None, :size] for row, size in zip(x_BTH, self.sizes, strict=True))

    def joined(self, rows: Iterable[Tensor]) -> Tensor:
        """Return x_1NH of rows (1, size, H), filled up with zeros; the first and last axis may have any size."""
        parts = [*rows]
        total, like = sum(self.sizes), parts[0]
        return torch.cat([*parts, like.new_zeros(len(like), filled(total) - total, *like.shape[2:])], dim=1)

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
