"""Batches between processors and models: lists, arrays or tensors by name, padded to one length. Imports no torch."""

import logging
import sys
from collections.abc import Mapping
from functools import cache
from typing import Any, Self

import numpy as np

logger = logging.getLogger(__name__)


class BatchFeature(dict[str, Any]):
    """A dict with its entries as attributes."""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - a list, array or tensor
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"no entry {name!r}, expected one of: {', '.join(self) or 'none'}") from None

    def to(self, *args: Any, **kwargs: Any) -> Self:  # noqa: ANN401 - as for torch.Tensor.to
        """Move tensors to a device; a dtype applies to floating-point tensors only."""
        import torch

        device = kwargs.get("device", next((arg for arg in args if not isinstance(arg, torch.dtype)), None))
        dtype = kwargs.get("dtype", next((arg for arg in args if isinstance(arg, torch.dtype)), None))
        for name, value in self.items():
            if isinstance(value, torch.Tensor):
                self[name] = value.to(device=device, dtype=dtype if value.is_floating_point() else None)
        return self


def tensors_of(values: Mapping[str, Any], kind: str | None) -> BatchFeature:
    """Return rows of one length as arrays ("np") or tensors ("pt"); None returns them unchanged."""
    if kind is None:
        return BatchFeature(values)
    if kind not in ("np", "pt"):
        raise ValueError(f"return_tensors is {kind!r}, expected 'pt', 'np' or None")
    if kind == "pt":
        import torch
    batch = BatchFeature()
    for name, rows in values.items():
        lengths = {len(row) for row in rows if hasattr(row, "__len__") and getattr(row, "ndim", 1) != 0}
        if len(lengths) > 1:
            raise ValueError(f"{name}: rows of lengths {sorted(lengths)} cannot form a tensor: pass padding=True")
        array = np.asarray(rows) if lengths != {0} else np.asarray(rows, getattr(rows[0], "dtype", np.int64))
        batch[name] = torch.from_numpy(array) if kind == "pt" else array
    return batch


def on_host(values: Any) -> Any:  # noqa: ANN401 - a tensor, or anything else
    """Return a tensor of any device as an array; anything else as it is."""
    torch = sys.modules.get("torch")  # a process without torch joins texts of windows, and has no tensors
    if torch is None or not isinstance(values, torch.Tensor):
        return values
    from raysp.crossing import fetch

    return fetch(values)[0]


def truncates(truncation: bool | str | None, padding: bool | str) -> bool:
    """Return whether texts are cut at `max_length`; by default, as in transformers, only without padding."""
    return padding is False if truncation is None else truncation not in (False, "do_not_truncate")


def padded_length(
    lengths: list[int], padding: bool | str, max_length: int | None, pad_to_multiple_of: int | None
) -> int | None:
    """Return the length that rows are padded to, or None for no padding."""
    if padding is False or padding == "do_not_pad":
        return None
    if padding == "max_length" and max_length is not None:
        target = max_length
    elif padding in (True, "longest"):
        target = max(lengths, default=0)
    else:
        raise ValueError(f"padding is {padding!r} with max_length {max_length!r}, expected True or a max_length")
    multiple = pad_to_multiple_of or 1
    return -(-target // multiple) * multiple


@cache
def warn_of_missing_mask() -> None:
    """Warn, once per process, that rows of unequal length have no mask."""
    logger.warning(
        "the batch has rows of unequal length and no attention_mask: padding is treated as speech, so the output of a "
        "row depends on its batch. Pass return_attention_mask=True to the processor, and the mask to the model, for "
        "outputs that do not depend on the batch (warned once)"
    )
