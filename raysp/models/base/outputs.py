"""Inputs and outputs of models: batches of processors, and outputs with fields by attribute, name or position."""

import logging
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, Self, TypeVar, dataclass_transform, overload

import numpy as np
from torch import Tensor
from torch.export import register_dataclass

Class = TypeVar("Class")


class ModelOutput:
    """Base of output dataclasses, which read as tuples and mappings too."""

    def to_tuple(self) -> tuple[Any, ...]:
        """Return the fields that are not None, in order."""
        return tuple(self[name] for name in self.keys())

    def keys(self) -> list[str]:
        """Return the names of the fields that are not None, in order."""
        return [field.name for field in fields(self) if getattr(self, field.name) is not None]  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.to_tuple())

    def __len__(self) -> int:
        return len(self.keys())

    @overload
    def __getitem__(self, key: slice) -> tuple[Any, ...]: ...
    @overload
    def __getitem__(self, key: int | str) -> Any: ...  # noqa: ANN401 - a tensor, or a tuple of them
    def __getitem__(self, key: int | slice | str) -> Any:
        if not isinstance(key, str):
            return self.to_tuple()[key]
        if key not in self.keys():
            raise KeyError(key)
        return getattr(self, key)


@dataclass_transform(eq_default=False, kw_only_default=True)
def output(cls: type[Class]) -> type[Class]:
    """Make a class an output dataclass, registered with `torch.export`."""
    made = dataclass(eq=False, kw_only=True)(cls)
    register_dataclass(made, serialized_type_name=f"{made.__module__}.{made.__qualname__}")
    return made


@dataclass(eq=False)
class NoOutput(ModelOutput):
    """Output without fields, of models that give no hidden states."""


@output
class Wav2Vec2BaseModelOutput(ModelOutput):
    """`last_hidden_state` (B, T, H), `extract_features` (B, T, C) before projection, states and weights."""

    last_hidden_state: Tensor
    extract_features: Tensor
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


@output
class CausalLMOutput(ModelOutput):
    """`loss` when labels were given, `logits` (B, T, V) before softmax, states and weights."""

    loss: Tensor | None = None
    logits: Tensor
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


@output
class BaseModelOutput(ModelOutput):
    """`last_hidden_state` (B, T, H), states and weights."""

    last_hidden_state: Tensor
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


@output
class SequenceClassifierOutput(ModelOutput):
    """`loss` when labels were given, `logits` (B, num_labels) before softmax, states and weights."""

    loss: Tensor | None = None
    logits: Tensor
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


@output
class TokenClassifierOutput(ModelOutput):
    """`loss` when labels were given, `logits` (B, T, num_labels) before softmax, states and weights."""

    loss: Tensor | None = None
    logits: Tensor
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


@output
class XVectorOutput(ModelOutput):
    """`loss` when labels were given, `logits` and `embeddings` (B, xvector_output_dim), states and weights."""

    loss: Tensor | None = None
    logits: Tensor
    embeddings: Tensor
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


@output
class CausalLMOutputWithCrossAttentions(ModelOutput):
    """Output of a text decoder: `logits` (B, L, V), the cache, states and weights."""

    loss: Tensor | None = None
    logits: Tensor
    past_key_values: Any = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    cross_attentions: tuple[Tensor, ...] | None = None


@output
class Seq2SeqLMOutput(ModelOutput):
    """Output of an encoder-decoder: `logits` (B, L, V), the cache, states and weights."""

    loss: Tensor | None = None
    logits: Tensor
    past_key_values: Any = None
    decoder_hidden_states: tuple[Tensor, ...] | None = None
    decoder_attentions: tuple[Tensor, ...] | None = None
    cross_attentions: tuple[Tensor, ...] | None = None
    encoder_last_hidden_state: Tensor | None = None
    encoder_hidden_states: tuple[Tensor, ...] | None = None
    encoder_attentions: tuple[Tensor, ...] | None = None


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
        array = np.asarray(rows)
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
