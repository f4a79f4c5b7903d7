"""What models return: fields by attribute, name or position; those that are None have no position."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, TypeVar, dataclass_transform, overload

from torch import Tensor
from torch.export import register_dataclass

Class = TypeVar("Class")


class ModelOutput:
    """Give a dataclass of tensors the reading habits of a tuple and of a mapping."""

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
    """Make a dataclass of what a model returns, which `torch.export` looks into for its tensors."""
    made = dataclass(eq=False, kw_only=True)(cls)
    register_dataclass(made, serialized_type_name=f"{made.__module__}.{made.__qualname__}")
    return made


@output
class Wav2Vec2BaseModelOutput(ModelOutput):
    """`last_hidden_state` (B, T, H), `extract_features` (B, T, C) before projection, and what was asked for."""

    last_hidden_state: Tensor
    extract_features: Tensor
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


@output
class CausalLMOutput(ModelOutput):
    """`loss` when labels were given, `logits` (B, T, V) before softmax, and what was asked for."""

    loss: Tensor | None = None
    logits: Tensor
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


@output
class BaseModelOutput(ModelOutput):
    """`last_hidden_state` (B, T, H) and what was asked for."""

    last_hidden_state: Tensor
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


@output
class SequenceClassifierOutput(ModelOutput):
    """`loss` when labels were given, `logits` (B, num_labels) before softmax, and what was asked for."""

    loss: Tensor | None = None
    logits: Tensor
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


@output
class TokenClassifierOutput(ModelOutput):
    """`loss` when labels were given, `logits` (B, T, num_labels) before softmax, and what was asked for."""

    loss: Tensor | None = None
    logits: Tensor
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


@output
class XVectorOutput(ModelOutput):
    """`loss` when labels were given, `logits` and `embeddings` (B, xvector_output_dim), and what was asked for."""

    loss: Tensor | None = None
    logits: Tensor
    embeddings: Tensor
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


@output
class CausalLMOutputWithCrossAttentions(ModelOutput):
    """What a text decoder gives: `logits` (B, L, V), the cache, and what was asked for."""

    loss: Tensor | None = None
    logits: Tensor
    past_key_values: Any = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    cross_attentions: tuple[Tensor, ...] | None = None


@output
class Seq2SeqLMOutput(ModelOutput):
    """What an encoder and its decoder give: `logits` (B, L, V), the cache, and what was asked for."""

    loss: Tensor | None = None
    logits: Tensor
    past_key_values: Any = None
    decoder_hidden_states: tuple[Tensor, ...] | None = None
    decoder_attentions: tuple[Tensor, ...] | None = None
    cross_attentions: tuple[Tensor, ...] | None = None
    encoder_last_hidden_state: Tensor | None = None
    encoder_hidden_states: tuple[Tensor, ...] | None = None
    encoder_attentions: tuple[Tensor, ...] | None = None
