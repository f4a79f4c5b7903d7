"""Embeddings: a vector per recording, or per frame."""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor

from raysp.models.base.capabilities import Capability
from raysp.ops.labelling import Forward, LayerFrames

Floats = npt.NDArray[np.float32]


class MeanEmbedding:
    """Op for the mean of a layer over the frames of each recording.

    For a window of a longer row it stages the sum over the frames that the window owns, and their number, so that each
    frame counts once.

    Args:
        schema: the column.
        staged: staged columns of a window of a longer row: the sum and the number of frames.
        layer: -1 is `last_hidden_state`, k >= 0 is `hidden_states[k]`.
        normalize: scale to length 1.
    """

    def __init__(self, schema: pa.Schema, staged: pa.Schema, *, layer: int = -1, normalize: bool = False) -> None:
        self.schema = schema
        self.staged = staged
        self.layers: tuple[int, ...] = (layer,)
        self.layer = layer
        self.normalize = normalize

    def __call__(self, forward: Forward) -> list[Sequence[object]]:
        """Return the mean of each window, then sums and numbers of frames of windows of longer rows."""
        frames = forward.layer(self.layer)
        sums_BH = _sums(frames)
        counts = [end - first for first, end in frames.owned]
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
        total = _matrix(sums, len(counts)).sum(0, dtype=np.float64)
        return (self._mean(total.astype(np.float32), int(counts.to_numpy().sum())),)

    def _mean(self, total: Floats, count: int) -> Floats:
        mean = total / np.float32(max(count, 1))
        return mean / max(float(np.linalg.norm(mean)), 1e-12) if self.normalize else mean


class FrameEmbeddings:
    """Op for a layer's vectors of all frames of a recording.

    Args:
        schema: the column.
        staged: staged column of a window of a longer row: the vectors of the frames that it owns.
        layer: -1 is `last_hidden_state`, k >= 0 is `hidden_states[k]`.
        normalize: scale each vector to length 1.
    """

    def __init__(self, schema: pa.Schema, staged: pa.Schema, *, layer: int = -1, normalize: bool = False) -> None:
        self.schema = schema
        self.staged = staged
        self.layers: tuple[int, ...] = (layer,)
        self.layer = layer
        self.normalize = normalize

    def __call__(self, forward: Forward) -> list[Sequence[object]]:
        """Return the vectors of each window, then those of the owned frames of windows of longer rows."""
        frames = forward.layer(self.layer)
        hidden_BTH = frames.hidden_BTH.float()
        if self.normalize:
            hidden_BTH = torch.nn.functional.normalize(hidden_BTH, dim=-1)
        vectors_BTH = hidden_BTH.cpu().numpy()
        rows = [list(row[first:end]) for row, (first, end) in zip(vectors_BTH, frames.owned, strict=True)]
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
        vectors_BE = cast("Tensor", forward.of(Capability.XVECTOR)["embeddings"]).float().cpu().numpy()
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


def _sums(frames: LayerFrames) -> Floats:
    """Return the sum over the frames that each window owns, of shape (B, H)."""
    hidden_BTH = frames.hidden_BTH.float()
    places_T = torch.arange(hidden_BTH.shape[1], device=hidden_BTH.device)
    bounds_B2 = torch.tensor(frames.owned, device=hidden_BTH.device).view(-1, 2)
    owned_BT = (places_T >= bounds_B2[:, :1]) & (places_T < bounds_B2[:, 1:])
    sums: Floats = hidden_BTH.masked_fill(~owned_BT[:, :, None], 0.0).sum(1).cpu().numpy()
    return sums


def _matrix(vectors: "pa.Array[Any]", num_rows: int) -> Floats:
    """Return a column of vectors of one length as a matrix, one row per vector."""
    flat = cast("pa.FixedSizeListArray[Any, Any]", vectors).flatten()
    return np.asarray(flat, np.float32).reshape(num_rows, -1)
