"""Results of one forward pass: `Forward` on the device, from which outputs select, and `Rows` on the host."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, NamedTuple, Protocol, TypeAlias

import pyarrow as pa
import torch
from torch import Tensor

from raysp.capabilities import Capability
from raysp.crossing import Array, can_cross
from raysp.models.labelled_passes import ModelPass
from raysp.ops.late_steps import JoinOp
from raysp.ops.pasts import Past
from raysp.ops.rows import Place
from raysp.ops.step_ops import FunctionError, name_of

MADE_OF = ("logits", "embeddings", "pooler_output")
"""Names of values of a head from which labels are computed."""
Selected: TypeAlias = Mapping[str, Tensor | Sequence[Any]]
"""Tensors whose values an output needs, by name. Sequences are on the host already, and passed on unchanged."""


class Lengths(NamedTuple):
    """Lengths of the windows of a batch."""

    samples: Sequence[int]
    frames: Sequence[int]
    """Numbers of frames of logits and of `last_hidden_state`."""
    hidden_frames: Sequence[int]
    """Numbers of frames of `hidden_states`."""


@dataclass(frozen=True)
class Rows:
    """Facts of the windows of a batch that are on the host."""

    lengths: Lengths
    parts: Sequence[tuple[int, int] | None]
    """First and end of the frames that each window of a longer row owns; None for a row that is one window."""
    names: Sequence[str] = ()
    """Names of the windows: shard, row and number of the window. They seed random sampling."""
    source: Mapping[str, Sequence[object]] = field(default_factory=dict)
    """Source columns that outputs read: for each window the value of its row."""
    speech: Sequence[Place | None] = ()
    """Places of windows that are cut at pauses, with their probabilities of speech."""
    pasts: Sequence[Past | None] = ()
    """Samples before windows of longer rows, if an output of the step reads them."""
    frames_a_hidden_frame: Fraction = Fraction(1)
    results: dict[str, Sequence[object]] = field(default_factory=dict)
    """Columns of earlier outputs, by name; empty during `select`."""

    def owned(self, layer: int = -1) -> list[tuple[int, int]]:
        """Return first and end of the frames of a layer that each window owns: all frames if a row is one window."""
        rate = self.frames_a_hidden_frame if layer >= 0 else Fraction(1)
        owned = []
        for part, frames, hidden in zip(self.parts, self.lengths.frames, self.lengths.hidden_frames, strict=True):
            of_layer = hidden if layer >= 0 else frames
            first, end = part or (0, frames)  # the last window owns all frames to its end
            owned.append((int(first / rate), of_layer if end >= frames else min(of_layer, int(end / rate))))
        return owned

    def either(self, output: "OutputOp", values: Iterable[tuple[object, ...]]) -> list[Sequence[object]]:
        """Return the columns of an output from its values for each window: of `staged` in windows of longer rows."""
        no_label, no_part = (None,) * len(output.schema), (None,) * len(output.staged)
        of_windows = [
            (*of_window, *no_part) if part is None else (*no_label, *of_window)
            for part, of_window in zip(self.parts, values, strict=True)
        ]
        return [list(column) for column in zip(*of_windows, strict=True)]

    def own_samples(self, frame_stride: int) -> list[tuple[int, int, bool]]:
        """Return first and end of the samples that each window owns, and whether it is the last of its row."""
        own = []
        for part, samples, frames in zip(self.parts, self.lengths.samples, self.lengths.frames, strict=True):
            first, end = part or (0, frames)
            own.append((first * frame_stride, samples if end >= frames else end * frame_stride, end >= frames))
        return own

    def whole(self, values: Iterable[object]) -> list[object]:
        """Return values for a column of `schema`: None for windows of longer rows."""
        return [value if part is None else None for part, value in zip(self.parts, values, strict=True)]

    def staged(self, values: Iterable[object]) -> list[object]:
        """Return values for a column of `staged`: None for rows that are one window."""
        return [None if part is None else value for part, value in zip(self.parts, values, strict=True)]


@dataclass(frozen=True)
class LayerFrames:
    """The frames of one layer."""

    hidden_BTH: Tensor
    owned: Sequence[tuple[int, int]]
    """First and end of the frames that each window owns: all frames, without padding, if a row is one window."""


@dataclass(frozen=True, kw_only=True)
class Forward(ModelPass):
    """Results of one forward pass for a batch, with the windows and their samples."""

    rows: Rows
    heads: Mapping[Capability, Any]
    encoded: Any
    """Output of the base model: `last_hidden_state`, and `hidden_states` if an op reads a hidden layer."""
    waves_BS: Tensor
    """Samples at the checkpoint's rate, float32, before they are normalised."""
    num_samples_B: Tensor
    """Number of samples of each window."""

    def finite(self, *, with_hidden: bool) -> Tensor:
        """Return a boolean mask (B,) of the windows in which all values of frames are finite."""
        values = [self.encoded.last_hidden_state] if with_hidden else []
        for head in {id(output): output for output in self.heads.values()}.values():
            values += [value for name in MADE_OF if (value := getattr(head, name, None)) is not None]
        finite_B = torch.ones_like(self.num_frames_B, dtype=torch.bool)
        for value in values:
            is_finite = torch.isfinite(value).all(-1)
            if is_finite.ndim == 2:
                frames_T = torch.arange(is_finite.shape[1], device=is_finite.device)
                is_finite = (is_finite | (frames_T[None] >= self.num_frames_B[:, None])).all(-1)
            finite_B &= is_finite
        return finite_B

    def layer(self, index: int) -> LayerFrames:
        """Return the frames of `last_hidden_state` (-1), or of the hidden state before (0) or after the k-th layer."""
        hidden_BTH = self.encoded.last_hidden_state if index == -1 else self.encoded.hidden_states[index]
        return LayerFrames(hidden_BTH, self.rows.owned(index))


class OutputOp(JoinOp, Protocol):
    """Op that converts a forward pass to columns, in two phases: on the device, and on the host.

    The tensors that all outputs of a batch select cross to the host in one copy. An op whose columns are computed by
    other processes has an attribute `concurrent_batches`: the number of batches that may wait for them at once.
    """

    schema: pa.Schema
    """Columns of the label shard; null in windows of longer rows."""
    staged: pa.Schema
    """Columns staged by windows of longer rows for `joining`; null in rows that are one window."""
    layers: tuple[int, ...] = ()
    """Hidden layers that it reads: -1 is `last_hidden_state`, k >= 0 is `hidden_states[k]`."""

    def select(self, forward: Forward) -> Selected:
        """Return the tensors whose values `columns` needs.

        On a GPU no value is read here: the next pass would wait. Other outputs read the same pass: its tensors must not
        be changed in place.
        """
        ...

    def columns(self, arrays: Mapping[str, Array], rows: Rows) -> list[Sequence[object]]:
        """Return the columns of `schema`, then of `staged`, one value per window.

        Args:
            arrays: the values of the tensors that `select` returned, by the same names.
            rows: the windows; columns of earlier outputs of the step are in `results`.
        """
        ...

    def empty(self) -> tuple[object, ...]:
        """Return the values of a recording shorter than one frame."""
        return (None,) * len(self.schema)


@dataclass(eq=False)
class StagingOp(OutputOp):
    """Base of ops that are made with their columns."""

    schema: pa.Schema
    staged: pa.Schema


class ListingOp(StagingOp):
    """Base of ops of one column of lists, which are empty for a recording shorter than one frame."""

    def empty(self) -> tuple[object, ...]:
        return ([],)


def check_selected(output: OutputOp, selected: object) -> None:
    """Raise FunctionError if a user's output selected a value that cannot cross to the host."""
    if not isinstance(selected, Mapping):
        kind = type(selected).__name__
        raise FunctionError(f"{name_of(output)} selected a {kind}; expected a dict of tensors by name")
    for name, value in selected.items():
        if isinstance(value, Tensor) and not can_cross(value):
            kind = f"{value.dtype} and {value.layout} on {value.device}"
            raise FunctionError(
                f"{name_of(output)} selected {name!r} as {kind}, which numpy lacks: convert it, as by .float()"
            )
