"""Give a vector for each recording, or one for each of its frames."""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor

from raysp.ops.labelling import Forward, LayerFrames

Floats = npt.NDArray[np.float32]


class MeanEmbedding:
    """Average a layer over the frames of each recording.

    Of a window of a longer row it keeps the sum over the frames that the window answers for, and how many they are, so
    that each frame counts once.

    Args:
        schema: the column.
        staged: of the columns of a window of a longer row: the sum and the number of frames.
        layer: -1 is `last_hidden_state`, k >= 0 is `hidden_states[k]`.
        normalize: to length 1.
    """

    def __init__(self, schema: pa.Schema, staged: pa.Schema, *, layer: int = -1, normalize: bool = False) -> None:
        self.schema = schema
        self.staged = staged
        self.layers: tuple[int, ...] = (layer,)
        self.layer = layer
        self.normalize = normalize

    def __call__(self, forward: Forward) -> list[Sequence[object]]:
        """Give the mean of each window, then sums and numbers of frames of those of longer rows."""
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
        """Give the value of a recording that is too short to hold a frame: none."""
        return (None,)

    def join(self, windows: pa.Table) -> tuple[object, ...]:
        """Give the mean of one row, from the sums of its windows."""
        sums, counts = (windows.column(name).combine_chunks() for name in self.staged.names)
        total = _matrix(sums, len(counts)).sum(0, dtype=np.float64)
        return (self._mean(total.astype(np.float32), int(counts.to_numpy().sum())),)

    def _mean(self, total: Floats, count: int) -> Floats:
        mean = total / np.float32(max(count, 1))
        return mean / max(float(np.linalg.norm(mean)), 1e-12) if self.normalize else mean


class FrameEmbeddings:
    """Give a layer's vector for each frame of a recording.

    Args:
        schema: the column.
        staged: of the column of a window of a longer row: the vectors of the frames that it answers for.
        layer: -1 is `last_hidden_state`, k >= 0 is `hidden_states[k]`.
        normalize: each to length 1.
    """

    def __init__(self, schema: pa.Schema, staged: pa.Schema, *, layer: int = -1, normalize: bool = False) -> None:
        self.schema = schema
        self.staged = staged
        self.layers: tuple[int, ...] = (layer,)
        self.layer = layer
        self.normalize = normalize

    def __call__(self, forward: Forward) -> list[Sequence[object]]:
        """Give the vectors of each window, or of the frames that a window of a longer row answers for."""
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
        """Give the value of a recording that is too short to hold a frame."""
        return ([],)

    def join(self, windows: pa.Table) -> tuple[object, ...]:
        """Give the vectors of one row, from those of its windows in their order."""
        [name] = self.staged.names
        lists = cast("pa.ListArray[Any]", windows.column(name).combine_chunks())
        vectors = cast("pa.FixedSizeListArray[Any, Any]", lists.flatten())
        return (list(_matrix(vectors, len(vectors))),)


class SpeakerEmbedding:
    """Give the x-vector of each recording; of a longer one the mean over its windows by their frames.

    Args:
        schema: the column.
        staged: of the columns of a window of a longer row: its vector by its number of frames, and that number.
        normalize: to length 1.
    """

    layers: tuple[int, ...] = ()

    def __init__(self, schema: pa.Schema, staged: pa.Schema, *, normalize: bool = False) -> None:
        self.schema = schema
        self.staged = staged
        self._mean = MeanEmbedding(schema, staged, normalize=normalize)

    def __call__(self, forward: Forward) -> list[Sequence[object]]:
        """Give the vector of each window."""
        vectors_BE = cast("Tensor", forward.of("Embedding")["embeddings"]).float().cpu().numpy()
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
        """Give the value of a recording that is too short for the model: none."""
        return (None,)

    def join(self, windows: pa.Table) -> tuple[object, ...]:
        """Give the vector of one row."""
        return self._mean.join(windows)


def _sums(frames: LayerFrames) -> Floats:
    """Sum each window's frames from the first that it answers for to the last."""
    hidden_BTH = frames.hidden_BTH.float()
    places_T = torch.arange(hidden_BTH.shape[1], device=hidden_BTH.device)
    bounds_B2 = torch.tensor(frames.owned, device=hidden_BTH.device).view(-1, 2)
    owned_BT = (places_T >= bounds_B2[:, :1]) & (places_T < bounds_B2[:, 1:])
    sums: Floats = hidden_BTH.masked_fill(~owned_BT[:, :, None], 0.0).sum(1).cpu().numpy()
    return sums


def _matrix(vectors: "pa.Array[Any]", num_rows: int) -> Floats:
    """See a column of vectors of one length as a matrix, a row each."""
    flat = cast("pa.FixedSizeListArray[Any, Any]", vectors).flatten()
    return np.asarray(flat, np.float32).reshape(num_rows, -1)
