"""Packs: rows end to end, which a model takes in place of a padded batch.

A batch is values and a mask; a pack is values and the places of rows, which the host knows. On a device all packs of a
checkpoint have one size, so that each product of each pass has one shape, and a row's values do not depend on its
neighbours.

Legend: S inputs (samples or frames of features), N frames of a pack, R rows, C channels, H hidden.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
from torch import Tensor

from raysp.capabilities import Capability
from raysp.crossing import send
from raysp.models.base.outputs import BaseModelOutput, ModelOutput
from raysp.models.kernels.pack_sizes import slot_frames, whole_parts
from raysp.models.kernels.packing import Packing
from raysp.models.kernels.row_tables import RowTables, pooled_sums

Make: TypeAlias = Callable[[Tensor], Sequence[Tensor]]
Choose: TypeAlias = Callable[[ModelOutput], Tensor]
"""Function of the results of an encoder that returns the frames of a layer, or of a sum of layers."""
Places: TypeAlias = Callable[[bool], RowTables]
"""Function that returns the places of rows on the device, among hidden states (True) or frames of the last one."""


@dataclass(frozen=True)
class Pack:
    """Inputs of rows end to end, zeros between and behind them.

    Raises:
        ValueError: values do not have `stride` inputs for each frame, or a row is longer than its slot.
    """

    values_S: Tensor
    """Samples (S,), or frames of features (S, C)."""
    num_inputs: tuple[int, ...]
    """Number of inputs of each row."""
    packing: Packing
    """Places of the rows' frames; a row's inputs begin at its place times `stride`."""
    stride: int
    """Inputs from one frame to the next."""
    num_valid: tuple[int, ...] | None = None
    """Inputs of each row that its mask includes, such as pairs of log-mels without a last single one; None: all."""
    num_valid_R: Tensor | None = None
    """The same on a device, of all rows of `Packing.tables`; None: a pack without tables."""

    def __post_init__(self) -> None:
        """Check the lengths."""
        slots, size = self.packing.slots or (), self.packing.size or 0
        room = [slot * self.stride for slot in slots]
        if len(self.values_S) != size * self.stride or any(map(int.__gt__, self.num_inputs, room)):
            raise ValueError(
                f"found {len(self.values_S)} inputs in rows of {[*self.num_inputs]}, expected {size * self.stride} in "
                f"rows of at most {room}"
            )

    @classmethod
    def of(
        cls,
        rows: Sequence[Tensor],
        num_frames: Sequence[int],
        stride: int,
        size: int,
        num_valid: Sequence[int] | None = None,
    ) -> "Pack":
        """Put rows end to end, in slots of as few frames as hold them.

        Args:
            rows: inputs (S,) or (S, C) of each row.
            num_frames: frames of the model for each row.
            stride: inputs from one frame to the next.
            size: frames of the pack, at least the sum of `slot_frames`.
            num_valid: inputs of each row that its mask includes; None: all.
        """
        slots = [slot_frames(len(row), stride) for row in rows]
        return cls.placed(rows, Packing.in_slots(num_frames, slots, size), stride, num_valid)

    @classmethod
    def placed(
        cls,
        rows: Sequence[Tensor],
        packing: Packing,
        stride: int,
        num_valid: Sequence[int] | None = None,
        num_valid_R: Tensor | None = None,
    ) -> "Pack":
        """Put rows at the places of their frames."""
        values_S = rows[0].new_zeros((packing.size or 0) * stride, *rows[0].shape[1:])
        for row, place in zip(rows, packing.places, strict=True):
            values_S[place.start * stride : place.start * stride + len(row)] = row
        valid = None if num_valid is None else tuple(num_valid)
        return cls(values_S, tuple(map(len, rows)), packing, stride, valid, num_valid_R)

    @property
    def attended(self) -> Packing:
        """Places of rows of which the inputs that their masks include are attended to; for one input a frame."""
        tables = self.packing.tables
        if tables is not None and self.num_valid_R is not None:
            tables = tables.with_keys(self.num_valid_R)
        return replace(self.packing, keys=self.num_valid, tables=tables)

    @property
    def rows(self) -> Iterator[Tensor]:
        """Inputs of each row, views (1, S) or (1, S, C)."""
        for place, length in zip(self.packing.places, self.num_inputs, strict=True):
            yield self.values_S[None, place.start * self.stride : place.start * self.stride + length]


@dataclass(frozen=True)
class EncodedPack:
    """Frames of an encoder for a pack; between rows and behind them they are undefined."""

    hidden_1NH: Tensor
    """The last hidden state."""
    packing: Packing
    states: Sequence[Tensor] = ()
    """The input of the first layer and the output of each, (1, N, H), if requested."""
    states_packing: Packing | None = None
    """Places of rows in the hidden states; None: as in the last one."""

    def split(self, frames_1NC: Tensor) -> list[Tensor]:
        """Return the frames (1, T, C) of each row, views."""
        return [*self.packing.rows(frames_1NC)]

    def read(self, output: ModelOutput) -> "PackOutput":
        """Return the output of a head over these frames."""
        return PackOutput(output, self.packing)

    @property
    def outputs(self) -> list[BaseModelOutput]:
        """Last hidden state, and hidden states if there are any, of each row: views (1, T, H)."""
        states = [[*(self.states_packing or self.packing).rows(state_1NH)] for state_1NH in self.states]
        return [
            BaseModelOutput(last_hidden_state=row_1TH, hidden_states=tuple(of_all[row] for of_all in states) or None)
            for row, row_1TH in enumerate(self.split(self.hidden_1NH))
        ]

    def with_frames(self, hidden_1NH: Tensor, packing: Packing) -> "EncodedPack":
        """Return the pack with other frames in place of the last hidden state, at other places."""
        return EncodedPack(hidden_1NH, packing, self.states, self.packing)

    def with_rows(self, rows: Sequence[Tensor], keys: Sequence[int] | None = None) -> "EncodedPack":
        """Return the pack with other frames (1, T, H) in place of the last hidden state, at most as many.

        `keys` are the frames of each row that are pooled; None: all.
        """
        counts = [row.shape[1] for row in rows]
        is_on_cpu = self.hidden_1NH.device.type == "cpu"
        size = whole_parts(sum(counts)) if is_on_cpu else self.packing.size or self.hidden_1NH.shape[1]
        packing = Packing.in_slots(counts, counts, size)
        packing = replace(packing, keys=None if keys is None else tuple(keys))
        return self.with_frames(packing.joined(rows), packing)


@dataclass(frozen=True)
class PackOutput:
    """Results of a head for all rows of a pack: of frames (1, N, ...), or of rows (R, ...), followed by any others."""

    output: ModelOutput
    packing: Packing
    """Places of the rows' frames."""

    @property
    def rows(self) -> list[ModelOutput]:
        """Results of each row, views (1, T, ...) or (1, ...)."""
        names = self.output.keys()
        return [
            type(self.output)(**{name: self.of_row(row, self.output[name]) for name in names})
            for row in range(len(self.packing.counts))
        ]

    def of_row(self, row: int, value: Tensor) -> Tensor:
        """Return a row's part of a value of all rows."""
        return value[:, self.packing.places[row]] if value.ndim == 3 else value[row : row + 1]


@dataclass(frozen=True)
class PackPass:
    """Results of an encoder and of heads for all rows of a pack."""

    encoded: EncodedPack
    heads: Mapping[Capability, PackOutput]

    def placed(self, frames: Sequence[int], hidden_frames: Sequence[int], slots: Sequence[int]) -> "PackPass":
        """Return the results of rows of so many frames, for a pass that knew rows on the device alone."""
        size = (self.encoded.states_packing or self.encoded.packing).size or 1
        factor = self.encoded.hidden_1NH.shape[1] // size
        packing = Packing.in_slots(frames, [slot * factor for slot in slots], size * factor)
        of_states = Packing.in_slots(hidden_frames, slots, size)
        encoded = replace(self.encoded, packing=packing, states_packing=of_states)
        return PackPass(encoded, {one: replace(head, packing=packing) for one, head in self.heads.items()})


class PackResults:
    """Results of heads for all rows of a pack, and values that outputs compute from them for all rows at once.

    Args:
        found: the results.
        places: places of the rows; None: they are not where their samples are, but where an adapter put them.
    """

    def __init__(self, found: PackPass, places: Places | None = None) -> None:
        encoded, heads = found.encoded, found.heads
        encoder = encoded.read(BaseModelOutput(last_hidden_state=encoded.hidden_1NH))
        self.encoder = BaseModelOutput(last_hidden_state=encoded.hidden_1NH, hidden_states=tuple(encoded.states))
        """Last hidden state and hidden states of all rows, (1, N, H)."""
        self._places, self._states_packing = places, encoded.states_packing or encoded.packing
        self._values: dict[Capability | None, PackOutput] = {None: encoder, **{one: heads[one] for one in heads}}
        self._made: dict[object, Sequence[Tensor]] = {}

    @property
    def capabilities(self) -> Sequence[Capability]:
        """Capabilities of the heads."""
        return [one for one in self._values if one is not None]

    def made(self, row: int, capability: Capability | None, name: str, make: Make) -> Sequence[Tensor]:
        """Return the result of a function for a row's value, computed for all rows at once.

        Args:
            row: number of the row.
            capability: of the head; None: values of the encoder.
            name: name of the value.
            make: function of (..., C) that returns tensors (...).
        """
        of, key = self._values[capability], (capability, name, make)
        value = of.output[name]
        if key not in self._made:
            self._made[key] = make(value)
        place = of.packing.places[row]
        return [one[:, place] if value.ndim == 3 else one[row : row + 1] for one in self._made[key]]

    def frames(self, values_1NC: Tensor, *, of_states: bool) -> list[Tensor]:
        """Return the values (1, T, C) of each row, views, of those of all frames, or of hidden states."""
        return [*(self._states_packing if of_states else self._values[None].packing).rows(values_1NC)]

    def sums(self, choose: Choose, owned: Sequence[tuple[int, int]] | None, *, of_states: bool) -> Tensor | None:
        """Return float32 sums (R, H) over frames of each row, computed for all rows at once; None without places.

        Args:
            choose: returns the frames of the encoder.
            owned: first and end of the frames of each row of the pack that count; None: all.
            of_states: whether `choose` reads hidden states, not the last one.
        """
        if self._places is None:
            return None
        tables = self._places(of_states)
        firsts_R, ends_R = None, tables.counts_R
        if owned is not None:
            bounds = np.zeros((2, tables.num_rows), np.int64)
            bounds[:, : len(owned)] = np.transpose(owned)
            [firsts_R, ends_R] = send(ends_R.device, *bounds)
        return pooled_sums(choose(self.encoder), ends_R, tables, firsts_R)


@runtime_checkable
class EncodesPacks(Protocol):
    """An encoder that takes packs; a row has equal values, to the last bit, in each pack."""

    @property
    def inputs_a_frame(self) -> int:
        """Inputs from one frame of hidden states to the next: samples, or frames of features."""
        ...

    def encode_pack(self, pack: Pack, *, with_states: bool = False) -> EncodedPack:
        """Return the frames of all rows, and the hidden states if requested."""
        ...


@runtime_checkable
class ReadsPacks(Protocol):
    """A head over the frames of an encoder that takes packs."""

    def read_pack(self, encoded: EncodedPack) -> PackOutput:
        """Return for all rows what `forward` returns for one: values of frames, or of rows."""
        ...
