"""Embeddings: a vector per recording, or per frame; of one layer, of several, or of their learned sum."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor

from raysp.capabilities import Capability
from raysp.crossing import Array, Steps, alone, send
from raysp.models.base.outputs import ModelOutput
from raysp.models.encoder.heads import LayerSum
from raysp.ops.forward import Forward, LayerFrames

Floats = npt.NDArray[np.float32]

LEARNED_SUM = -2
"""In place of a layer: the sum of all hidden states, weighted as a head of the checkpoint learned."""


class ChosenFrames:
    """Frames of a layer, or of the sum of all hidden states with the softmax of weights."""

    def __init__(self, layer: int, layer_weights_K: Tensor | None) -> None:
        self.layer, self.layer_weights_K = layer, layer_weights_K
        self.numbered = 0 if layer == LEARNED_SUM else layer
        """The layer, or one with the same places."""

    def __call__(self, encoded: ModelOutput) -> Tensor:
        """Return the frames (B, T, H) of the results of an encoder."""
        if self.layer == -1:
            return cast("Tensor", encoded["last_hidden_state"])
        states = cast("Sequence[Tensor]", encoded["hidden_states"])
        if self.layer != LEARNED_SUM:
            return states[self.layer]
        if self.layer_weights_K is None:
            raise ValueError("layer weights are missing; expected those of a head that reads a sum of hidden states")
        total = LayerSum(self.layer_weights_K)
        for hidden_BTH in states:
            total.append(hidden_BTH)
        return total.total

    def of(self, forward: Forward) -> LayerFrames:
        """Return the frames of a pass."""
        return replace(forward.layer(self.numbered), hidden_BTH=self(forward.encoded))

    def sums(self, forward: Forward) -> Tensor:
        """Return the sum over the frames that each window owns, of shape (B, H)."""
        return _sums(self.of(forward))


class MeanEmbedding:
    """Op for the mean of a layer over the frames of each recording.

    For a window of a longer row it stages the sum over the frames that the window owns, and their number, so that each
    frame counts once.

    Args:
        schema: the column.
        staged: staged columns of a window of a longer row: the sum and the number of frames.
        layer: -1 is `last_hidden_state`, k >= 0 is `hidden_states[k]`, or `LEARNED_SUM`.
        normalize: scale to length 1.
        layer_weights_K: for `LEARNED_SUM`, of a head; None if only `join` is called.
    """

    def __init__(
        self,
        schema: pa.Schema,
        staged: pa.Schema,
        *,
        layer: int = -1,
        normalize: bool = False,
        layer_weights_K: Tensor | None = None,
    ) -> None:
        self.schema = schema
        self.staged = staged
        self.frames = ChosenFrames(layer, layer_weights_K)
        self.layers: tuple[int, ...] = (self.frames.numbered,)
        self.normalize = normalize

    def __call__(self, forward: Forward) -> list[Sequence[object]]:
        """Return the mean of each window, then sums and numbers of frames of windows of longer rows."""
        return alone(self.steps(forward))

    def steps(self, forward: Forward) -> Steps[list[Sequence[object]]]:
        """Yield the tensors whose values are needed on the host, then return the result of `__call__`."""
        [sums_BH] = yield [self.frames.sums(forward)]
        counts = [end - first for first, end in forward.layer(self.frames.numbered).owned]
        parts = [part is not None for part in forward.parts]
        rows = list(zip(parts, sums_BH, counts, strict=True))
        return [
            [None if part else self._mean(total, count) for part, total, count in rows],
            [total if part else None for part, total, _ in rows],
            [count if part else None for part, _, count in rows],
        ]

    def empty(self) -> tuple[object, ...]:
        """Return the value of a recording shorter than one frame: null."""
        return (None,)

    def join(self, windows: pa.Table) -> tuple[object, ...]:
        """Return the mean of one row, from the sums of its windows."""
        sums, counts = (windows.column(name).combine_chunks() for name in self.staged.names)
        # In float64, so that the number of windows costs no digits.
        total = _matrix(sums, len(counts)).sum(0, dtype=np.float64)
        return (self._mean(total.astype(np.float32), int(counts.to_numpy().sum())),)

    def _mean(self, total: Floats, count: int) -> Floats:
        mean = total / np.float32(max(count, 1))
        # The bound is that of torch's `normalize`: a vector of zeros stays one.
        return mean / max(float(np.linalg.norm(mean)), 1e-12) if self.normalize else mean


class FrameEmbeddings:
    """Op for a layer's vectors of all frames of a recording.

    Args:
        schema: the column.
        staged: staged column of a window of a longer row: the vectors of the frames that it owns.
        layer: -1 is `last_hidden_state`, k >= 0 is `hidden_states[k]`, or `LEARNED_SUM`.
        normalize: scale each vector to length 1.
        layer_weights_K: for `LEARNED_SUM`, of a head; None if only `join` is called.
    """

    def __init__(
        self,
        schema: pa.Schema,
        staged: pa.Schema,
        *,
        layer: int = -1,
        normalize: bool = False,
        layer_weights_K: Tensor | None = None,
    ) -> None:
        self.schema = schema
        self.staged = staged
        self.frames = ChosenFrames(layer, layer_weights_K)
        self.layers: tuple[int, ...] = (self.frames.numbered,)
        self.normalize = normalize

    def __call__(self, forward: Forward) -> list[Sequence[object]]:
        """Return the vectors of each window, then those of the owned frames of windows of longer rows."""
        return alone(self.steps(forward))

    def steps(self, forward: Forward) -> Steps[list[Sequence[object]]]:
        """Yield the tensors whose values are needed on the host, then return the result of `__call__`."""
        vectors_BTH = self.frames(forward.encoded).float()
        if self.normalize:
            vectors_BTH = torch.nn.functional.normalize(vectors_BTH, dim=-1)
        [vectors] = yield [vectors_BTH]
        owned = forward.layer(self.frames.numbered).owned
        rows = [list(row[first:end]) for row, (first, end) in zip(vectors, owned, strict=True)]
        parts = [part is not None for part in forward.parts]
        return [
            [None if part else row for part, row in zip(parts, rows, strict=True)],
            [row if part else None for part, row in zip(parts, rows, strict=True)],
        ]

    def empty(self) -> tuple[object, ...]:
        """Return the value of a recording shorter than one frame: an empty list."""
        return ([],)

    def join(self, windows: pa.Table) -> tuple[object, ...]:
        """Return the vectors of one row, from those of its windows in order."""
        [name] = self.staged.names
        lists = cast("pa.ListArray[Any]", windows.column(name).combine_chunks())
        vectors = cast("pa.FixedSizeListArray[Any, Any]", lists.flatten())
        return (list(_matrix(vectors, len(vectors))),)


class SpeakerEmbedding:
    """Op for the x-vector of each recording; for a longer row, the mean over its windows weighted by owned frames.

    Args:
        schema: the column.
        staged: staged columns of a window of a longer row: its vector times its number of frames, and that number.
        normalize: scale to length 1.
    """

    layers: tuple[int, ...] = ()

    def __init__(self, schema: pa.Schema, staged: pa.Schema, *, normalize: bool = False) -> None:
        self.schema = schema
        self.staged = staged
        self._mean = MeanEmbedding(schema, staged, normalize=normalize)

    def __call__(self, forward: Forward) -> list[Sequence[object]]:
        """Return the vector of each window, then weighted vectors and weights of windows of longer rows."""
        return alone(self.steps(forward))

    def steps(self, forward: Forward) -> Steps[list[Sequence[object]]]:
        """Yield the tensors whose values are needed on the host, then return the result of `__call__`."""
        [vectors_BE] = yield [forward.of(Capability.XVECTOR)["embeddings"].float()]
        rows = [
            (part is not None, vector, 1 if part is None else part[1] - part[0])
            for part, vector in zip(forward.parts, vectors_BE, strict=True)
        ]
        return [
            [None if part else self._mean._mean(vector, 1) for part, vector, _ in rows],
            [vector * np.float32(count) if part else None for part, vector, count in rows],
            [count if part else None for part, _, count in rows],
        ]

    def empty(self) -> tuple[object, ...]:
        """Return the value of a recording that is too short for the model: null."""
        return (None,)

    def join(self, windows: pa.Table) -> tuple[object, ...]:
        """Return the vector of one row, from those of its windows."""
        return self._mean.join(windows)


class _OfOneLayer(Protocol):
    """Op for the embedding of one layer, a single column."""

    staged: pa.Schema
    layers: tuple[int, ...]

    def steps(self, forward: Forward) -> Steps[list[Sequence[object]]]: ...

    def empty(self) -> tuple[object, ...]: ...

    def join(self, windows: pa.Table) -> tuple[object, ...]: ...


class SeveralLayers:
    """Op for the embeddings of several layers, side by side in one column: a list of them in the order of `ops`.

    Args:
        schema: the column.
        ops: ops of the layers, which stage columns of different names.
    """

    def __init__(self, schema: pa.Schema, ops: Sequence[_OfOneLayer]) -> None:
        self.schema = schema
        self.ops = ops
        self.staged = pa.schema([field for op in ops for field in op.staged])
        self.layers = tuple(layer for op in ops for layer in op.layers)

    def __call__(self, forward: Forward) -> list[Sequence[object]]:
        """Return the embeddings of each window, then the staged columns of all layers."""
        return alone(self.steps(forward))

    def steps(self, forward: Forward) -> Steps[list[Sequence[object]]]:
        """Yield the tensors whose values are needed on the host, then return the result of `__call__`."""
        works = [op.steps(forward) for op in self.ops]
        asked = [next(work) for work in works]
        arrays = iter((yield [one for tensors in asked for one in tensors]))
        found = [_end(work, [next(arrays) for _ in tensors]) for work, tensors in zip(works, asked, strict=True)]
        of_rows = [_beside(values) for values in zip(*(columns[0] for columns in found), strict=True)]
        return [of_rows, *(column for columns in found for column in columns[1:])]

    def empty(self) -> tuple[object, ...]:
        """Return the value of a recording shorter than one frame: null, or an empty list for each layer."""
        return (_beside([op.empty()[0] for op in self.ops]),)

    def join(self, windows: pa.Table) -> tuple[object, ...]:
        """Return the embeddings of one row, from those of its windows in order."""
        return (_beside([op.join(windows)[0] for op in self.ops]),)


def _beside(values: Sequence[object]) -> list[object] | None:
    """Return the values of all layers; None if they are null."""
    return None if any(value is None for value in values) else [*values]


def _end(work: Steps[list[Sequence[object]]], arrays: Sequence[Array]) -> list[Sequence[object]]:
    """Return the columns of an op whose only step has these values."""
    try:
        work.send(arrays)
    except StopIteration as end:
        return cast("list[Sequence[object]]", end.value)
    raise RuntimeError("the op of a layer asks for more values, expected one step")


def _sums(frames: LayerFrames) -> Tensor:
    """Return the sum over the frames that each window owns, of shape (B, H)."""
    hidden_BTH = frames.hidden_BTH.float()
    if {*frames.owned} == {(0, hidden_BTH.shape[1])}:
        return hidden_BTH.sum(1)
    places_T = torch.arange(hidden_BTH.shape[1], device=hidden_BTH.device)
    if len(frames.owned) == 1:
        [(first, end)] = frames.owned
        owned_T = (places_T >= first) & (places_T < end)
        return hidden_BTH.masked_fill(~owned_T[:, None], 0.0).sum(1)
    [bounds_B2] = send(hidden_BTH.device, np.array(frames.owned, np.int64).reshape(-1, 2))
    owned_BT = (places_T >= bounds_B2[:, :1]) & (places_T < bounds_B2[:, 1:])
    # Filled, not multiplied by the mask: padded frames may hold NaN, and NaN times 0 is NaN.
    return hidden_BTH.masked_fill(~owned_BT[:, :, None], 0.0).sum(1)


def _matrix(vectors: "pa.Array[Any]", num_rows: int) -> Floats:
    """Return a column of vectors of one length as a matrix, one row per vector."""
    flat = cast("pa.FixedSizeListArray[Any, Any]", vectors).flatten()
    return np.asarray(flat, np.float32).reshape(num_rows, -1)
