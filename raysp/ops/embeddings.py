"""Embeddings: a vector per recording, or per frame; of one layer, of several layers, or of their learned sum."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor
from torch.nn import functional

from raysp.capabilities import Capability
from raysp.crossing import Array, send
from raysp.models.encoder.heads import LayerSum
from raysp.ops.forward import Forward, ListingOp, OutputOp, Rows, Selected, StagingOp

Floats = npt.NDArray[np.float32]

LEARNED_SUM = -2
"""In place of a layer: the sum of all hidden states, weighted as a head of the checkpoint learned."""


class ChosenFrames:
    """Frames of a layer, or of the sum of all hidden states with the softmax of weights.

    Args:
        layer: -1 is `last_hidden_state`, k >= 0 is `hidden_states[k]`, or `LEARNED_SUM`.
        layer_weights_K: for `LEARNED_SUM`, of a head; None if only windows are joined.
    """

    def __init__(self, layer: int, layer_weights_K: Tensor | None) -> None:
        self.layer, self.layer_weights_K = layer, layer_weights_K
        self.numbered = 0 if layer == LEARNED_SUM else layer
        """The layer, or a layer with the same frames."""

    def __call__(self, forward: Forward) -> Tensor:
        """Return the frames (B, T, H) of a pass."""
        if self.layer != LEARNED_SUM:
            return forward.layer(self.layer).hidden_BTH
        if self.layer_weights_K is None:
            raise ValueError("layer weights are missing; expected weights of a head that reads a sum of hidden states")
        total = LayerSum(self.layer_weights_K)
        for hidden_BTH in cast("Sequence[Tensor]", forward.encoded.hidden_states):
            total.append(hidden_BTH)
        return total.total


@dataclass(eq=False)
class MeanEmbedding(StagingOp):
    """Op for the mean of the frames of each recording.

    For a window of a longer row it stages the sum over the frames that the window owns, and their number, so that each
    frame counts once.

    Attributes:
        schema: the column.
        staged: staged columns of a window of a longer row: the sum and the number of frames.
        frames: the frames.
        normalize: scale to length 1.
    """

    frames: ChosenFrames
    normalize: bool

    def __post_init__(self) -> None:
        self.layers = (self.frames.numbered,)

    def select(self, forward: Forward) -> Selected:
        return {"sums": _sums(self.frames(forward).float(), forward.rows.owned(self.frames.numbered))}

    def columns(self, arrays: Mapping[str, Array], rows: Rows) -> list[Sequence[object]]:
        counts = [end - first for first, end in rows.owned(self.frames.numbered)]
        return _means(arrays["sums"], counts, rows, normalize=self.normalize)

    def join(self, windows: pa.Table) -> tuple[object, ...]:
        return (_mean_over(windows, self.staged, normalize=self.normalize),)


@dataclass(eq=False)
class FrameEmbeddings(ListingOp):
    """Op for the vectors of all frames of a recording.

    Attributes:
        schema: the column.
        staged: staged column of a window of a longer row: the vectors of the frames that it owns.
        frames: the frames.
        normalize: scale each vector to length 1.
    """

    frames: ChosenFrames
    normalize: bool

    def __post_init__(self) -> None:
        self.layers = (self.frames.numbered,)

    def select(self, forward: Forward) -> Selected:
        vectors_BTH = self.frames(forward).float()
        return {"vectors": functional.normalize(vectors_BTH, dim=-1) if self.normalize else vectors_BTH}

    def columns(self, arrays: Mapping[str, Array], rows: Rows) -> list[Sequence[object]]:
        owned = zip(arrays["vectors"], rows.owned(self.frames.numbered), strict=True)
        vectors = [list(of_window[first:end]) for of_window, (first, end) in owned]
        return [rows.whole(vectors), rows.staged(vectors)]

    def join(self, windows: pa.Table) -> tuple[object, ...]:
        [name] = self.staged.names
        lists = cast("pa.ListArray[Any]", windows.column(name).combine_chunks())
        vectors = cast("pa.FixedSizeListArray[Any, Any]", lists.flatten())
        return (list(_matrix(vectors, len(vectors))),)


@dataclass(eq=False)
class SpeakerEmbedding(StagingOp):
    """Op for the x-vector of each recording; for a longer row, the mean over its windows weighted by owned frames.

    Attributes:
        schema: the column.
        staged: staged columns of a window of a longer row: its vector times its number of frames, and this number.
        normalize: scale to length 1.
    """

    normalize: bool

    def select(self, forward: Forward) -> Selected:
        return {"vectors": forward.heads[Capability.XVECTOR].embeddings.float()}

    def columns(self, arrays: Mapping[str, Array], rows: Rows) -> list[Sequence[object]]:
        vectors_BE = arrays["vectors"]
        counts = [1 if part is None else part[1] - part[0] for part in rows.parts]
        weighted = [vector_E * np.float32(count) for vector_E, count in zip(vectors_BE, counts, strict=True)]
        return _means(weighted, counts, rows, normalize=self.normalize)

    def join(self, windows: pa.Table) -> tuple[object, ...]:
        return (_mean_over(windows, self.staged, normalize=self.normalize),)


def _means(sums: Iterable[Floats], counts: Sequence[int], rows: Rows, *, normalize: bool) -> list[Sequence[object]]:
    """Return the column of means, and the staged columns of sums and numbers."""
    means = [_mean(total, count, normalize=normalize) for total, count in zip(sums, counts, strict=True)]
    return [rows.whole(means), rows.staged(sums), rows.staged(counts)]


def _mean(total: Floats, count: int, *, normalize: bool) -> Floats:
    """Return the mean of a number of vectors from their sum."""
    mean = total / np.float32(max(count, 1))
    # The bound of torch's `normalize`: a vector of zeros stays zero.
    return mean / max(float(np.linalg.norm(mean)), 1e-12) if normalize else mean


def _mean_over(windows: pa.Table, staged: pa.Schema, *, normalize: bool) -> Floats:
    """Return the mean of vectors from the sums and numbers that windows staged."""
    sums, counts = (windows.column(name).combine_chunks() for name in staged.names)
    # In float64, so that the number of windows costs no digits.
    total = _matrix(sums, len(counts)).sum(0, dtype=np.float64)
    return _mean(total.astype(np.float32), int(counts.to_numpy().sum()), normalize=normalize)


class SeveralLayers(OutputOp):
    """Op for the embeddings of several layers in one column: a list in the order of `ops`.

    Args:
        schema: the column.
        ops: ops of one column for each layer, which stage columns of different names.
    """

    def __init__(self, schema: pa.Schema, ops: Sequence[OutputOp]) -> None:
        self.schema = schema
        self.ops = ops
        self.staged = pa.schema([field for op in ops for field in op.staged])
        self.layers = tuple(layer for op in ops for layer in op.layers)

    def select(self, forward: Forward) -> Selected:
        selected = [op.select(forward) for op in self.ops]
        return {f"{place} {name}": value for place, of_op in enumerate(selected) for name, value in of_op.items()}

    def columns(self, arrays: Mapping[str, Array], rows: Rows) -> list[Sequence[object]]:
        of_ops: list[dict[str, Array]] = [{} for _ in self.ops]
        for key, value in arrays.items():
            place, _, name = key.partition(" ")
            of_ops[int(place)][name] = value
        by_op = [op.columns(of_op, rows) for op, of_op in zip(self.ops, of_ops, strict=True)]
        of_rows = [_all_or_none(values) for values in zip(*(columns[0] for columns in by_op), strict=True)]
        return [of_rows, *(column for columns in by_op for column in columns[1:])]

    def empty(self) -> tuple[object, ...]:
        return (_all_or_none([op.empty()[0] for op in self.ops]),)

    def join(self, windows: pa.Table) -> tuple[object, ...]:
        return (_all_or_none([op.join(windows)[0] for op in self.ops]),)


def _all_or_none(values: Sequence[object]) -> list[object] | None:
    return None if any(value is None for value in values) else [*values]


def _sums(hidden_BTH: Tensor, owned: Sequence[tuple[int, int]]) -> Tensor:
    """Return the sum over the frames that each window owns, of shape (B, H)."""
    if {*owned} == {(0, hidden_BTH.shape[1])}:
        return hidden_BTH.sum(1)
    places_T = torch.arange(hidden_BTH.shape[1], device=hidden_BTH.device)
    [bounds_B2] = send(hidden_BTH.device, np.array(owned, np.int64).reshape(-1, 2))
    owned_BT = (places_T >= bounds_B2[:, :1]) & (places_T < bounds_B2[:, 1:])
    # Filled, not multiplied by the mask: padded frames may hold NaN, and NaN times 0 is NaN.
    return hidden_BTH.masked_fill(~owned_BT[:, :, None], 0.0).sum(1)


def _matrix(vectors: "pa.Array[Any]", num_rows: int) -> Floats:
    """Return a column of vectors of one length as a matrix, one row per vector."""
    flat = cast("pa.FixedSizeListArray[Any, Any]", vectors).flatten()
    return np.asarray(flat, np.float32).reshape(num_rows, -1)
