"""Outputs of models, with fields by attribute, name or position."""

from collections.abc import ItemsView, Iterator, KeysView, ValuesView
from dataclasses import dataclass, fields
from typing import Any, TypeVar, dataclass_transform, overload

from torch import Tensor

Class = TypeVar("Class")


class ModelOutput:
    """Base of output dataclasses, whose fields are read by attribute, name or position, as transformers' are.

    It has the methods of a mapping of the fields that are not None, in order, but is not a `Mapping`: programs copy
    mappings by `type(value)({...})`, which a dataclass does not take.
    """

    def _set(self) -> dict[str, Any]:
        """Return the fields that are not None."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]
        return {name: value for name, value in values.items() if value is not None}

    def keys(self) -> KeysView[str]:
        """Return the names of the fields that are not None."""
        return self._set().keys()

    def values(self) -> ValuesView[Any]:
        """Return the values of the fields that are not None."""
        return self._set().values()

    def items(self) -> ItemsView[str, Any]:
        """Return the fields that are not None, with their names."""
        return self._set().items()

    def get(self, key: str, default: Any = None) -> Any:  # noqa: ANN401 - the value of a field
        """Return the value of a field, or a default where it is None."""
        return self._set().get(key, default)

    def __contains__(self, key: object) -> bool:
        return key in self._set()

    def __iter__(self) -> Iterator[str]:
        return iter(self._set())

    def __len__(self) -> int:
        return len(self._set())

    def __setitem__(self, key: str, value: Any) -> None:  # noqa: ANN401 - the value of a field
        """Assign a field.

        Raises:
            KeyError: There is no such field.
        """
        names = [field.name for field in fields(self)]  # type: ignore[arg-type]
        if key not in names:
            raise KeyError(f"{type(self).__name__} has no field {key!r}, expected one of {', '.join(names)}")
        setattr(self, key, value)

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
class HeadOutput(ModelOutput):
    """Output of a head."""

    loss: Tensor | None = None
    logits: Tensor
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


class CausalLMOutput(HeadOutput):
    """`loss` with labels, `logits` (B, T, V) before softmax, states and weights."""


@output
class BaseModelOutput(ModelOutput):
    """`last_hidden_state` (B, T, H), states and weights."""

    last_hidden_state: Tensor
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


class SequenceClassifierOutput(HeadOutput):
    """`loss` with labels, `logits` (B, num_labels) before softmax, states and weights."""


class TokenClassifierOutput(HeadOutput):
    """`loss` with labels, `logits` (B, T, num_labels) before softmax, states and weights."""


@output
class XVectorOutput(ModelOutput):
    """`loss` with labels, `logits` and `embeddings` (B, xvector_output_dim), states and weights."""

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


@output
class GenerateOutput(ModelOutput):
    """Output of `generate` with `return_dict_in_generate=True`.

    `sequences` (B * n, T); with `output_scores=True` `scores`, (R, V) for each token, and for beam search
    `sequences_scores` (B * n,); `beam_indices` (B * n, new tokens) are rows of `scores`, -1 after the end.
    """

    sequences: Tensor
    sequences_scores: Tensor | None = None
    scores: tuple[Tensor, ...] | None = None
    beam_indices: Tensor | None = None
