"""Outputs of models, with fields by attribute, name or position."""

from dataclasses import dataclass
from typing import Any, TypeVar, dataclass_transform, overload

from torch import Tensor

from raysp.models.base.fields import Fields

Class = TypeVar("Class")


class ModelOutput(Fields):
    """Base of output dataclasses, whose fields are read by attribute, name or position."""

    def to_tuple(self) -> tuple[Any, ...]:
        """Return the fields that are not None, in order."""
        return tuple(self.values())

    @overload
    def __getitem__(self, key: slice) -> tuple[Any, ...]: ...
    @overload
    def __getitem__(self, key: int | str) -> Any: ...  # noqa: ANN401 - a tensor, or a tuple of them
    def __getitem__(self, key: int | slice | str) -> Any:
        if not isinstance(key, str):
            return self.to_tuple()[key]
        if key not in vars(self) or (value := getattr(self, key)) is None:
            raise KeyError(key)
        return value


@dataclass_transform(eq_default=False, kw_only_default=True)
def output(cls: type[Class]) -> type[Class]:
    """Make a class an output dataclass."""
    return dataclass(eq=False, kw_only=True)(cls)


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
