"""Outputs of Flax models: base/outputs.py with arrays of JAX, as nodes of JAX's trees."""

from dataclasses import dataclass, fields
from typing import Any, TypeVar, dataclass_transform

import jax
from jax import Array

from raysp.models.base.outputs import ModelOutput

Class = TypeVar("Class")


@dataclass_transform(eq_default=False, kw_only_default=True)
def output(cls: type[Class]) -> type[Class]:
    """Make a class an output dataclass that functions of JAX take and return."""
    made = dataclass(eq=False, kw_only=True)(cls)
    names = [field.name for field in fields(made)]  # type: ignore[arg-type]
    jax.tree_util.register_dataclass(made, data_fields=names, meta_fields=[])
    return made


@output
class FlaxBaseModelOutput(ModelOutput):
    """`last_hidden_state` (B, T, H), states and weights."""

    last_hidden_state: Array
    hidden_states: tuple[Array, ...] | None = None
    attentions: tuple[Array, ...] | None = None


@output
class FlaxWav2Vec2BaseModelOutput(ModelOutput):
    """`last_hidden_state` (B, T, H), `extract_features` (B, T, C) before projection, states and weights."""

    last_hidden_state: Array
    extract_features: Array
    hidden_states: tuple[Array, ...] | None = None
    attentions: tuple[Array, ...] | None = None


@output
class FlaxCausalLMOutputWithCrossAttentions(ModelOutput):
    """Output of a text decoder: `logits` (B, L, V), the updated cache, states and weights."""

    logits: Array
    past_key_values: Any = None
    hidden_states: tuple[Array, ...] | None = None
    attentions: tuple[Array, ...] | None = None
    cross_attentions: tuple[Array, ...] | None = None


@output
class FlaxSeq2SeqLMOutput(ModelOutput):
    """Output of an encoder-decoder: `logits` (B, L, V), states and weights of both parts."""

    logits: Array
    past_key_values: Any = None
    decoder_hidden_states: tuple[Array, ...] | None = None
    decoder_attentions: tuple[Array, ...] | None = None
    cross_attentions: tuple[Array, ...] | None = None
    encoder_last_hidden_state: Array | None = None
    encoder_hidden_states: tuple[Array, ...] | None = None
    encoder_attentions: tuple[Array, ...] | None = None


@output
class FlaxGenerateOutput(ModelOutput):
    """Output of `generate`: `sequences` (B * n, T), and for beam search `sequences_scores` (B * n,)."""

    sequences: Array
    sequences_scores: Array | None = None
