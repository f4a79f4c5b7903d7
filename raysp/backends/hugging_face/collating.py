"""Batches of the inputs of models of transformers, made from those of each recording alone.

Extractors of features pad samples with zeros before they compute frames, so that the last frames of a shorter recording
are others than those it has alone. Here the inputs of each recording are computed alone and padded afterwards.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

PROMPT = ("input_ids", "attention_mask")
"""Inputs that are padded on the left, if there are tokens of a prompt."""


def collated(rows: Sequence[Mapping[str, Any]], pad_token_id: int) -> dict[str, Any]:
    """Return the inputs of a batch from those of its rows; inputs that are no tensors are equal in all rows."""
    if len(rows) == 1:
        return dict(rows[0])
    is_prompted = PROMPT[0] in rows[0]
    return {
        name: _joined(
            [row[name] for row in rows],
            is_left=is_prompted and name in PROMPT,
            value=pad_token_id if name == PROMPT[0] else 0,
        )
        if isinstance(value, Tensor) and value.ndim
        else value
        for name, value in rows[0].items()
    }


def _joined(values: Sequence[Tensor], *, is_left: bool, value: int) -> Tensor:
    """Concatenate tensors along their first dimension, padded to the longest along the others."""
    sizes = [max(lengths) for lengths in zip(*(tensor.shape[1:] for tensor in values), strict=True)]
    return torch.cat([_padded(tensor, sizes, is_left=is_left, value=value) for tensor in values])


def _padded(tensor: Tensor, sizes: Sequence[int], *, is_left: bool, value: int) -> Tensor:
    missing = [size - length for size, length in zip(sizes, tensor.shape[1:], strict=True)]
    sides = [side for count in reversed(missing) for side in ((count, 0) if is_left else (0, count))]
    return functional.pad(tensor, sides, value=value)
