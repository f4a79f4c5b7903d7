"""BERT (Devlin et al. 2018, arXiv:1810.04805) as a text decoder in Flax: see models/bert.py.

Legend: R rows, L tokens, H hidden, S frames, V vocabulary.
"""

import functools
from typing import Any

from flax import linen as nn
from jax import Array

from raysp.models.flax.decoding import DecoderPass, KeysAndValues, attend_to_encoder, attend_to_tokens
from raysp.models.flax.layers import Numbered, activation, dropout, norm, split_heads


class BertEmbeddings(nn.Module):
    """Sum of the embeddings of words, positions and token type 0."""

    config: Any

    @nn.compact
    def __call__(self, ids_RL: Array, positions: Array, run: DecoderPass) -> Array:
        """Return hidden_RLH."""
        config = self.config
        words_RLH = nn.Embed(config.vocab_size, config.hidden_size, name="word_embeddings")(ids_RL)
        places = nn.Embed(config.max_position_embeddings, config.hidden_size, name="position_embeddings")(positions)
        types = nn.Embed(config.type_vocab_size, config.hidden_size, name="token_type_embeddings")(positions * 0)
        hidden_RLH = norm("LayerNorm", config.layer_norm_eps)(words_RLH + types + places)
        return dropout(hidden_RLH, config.hidden_dropout_prob, run)


class BertSelfAttention(nn.Module):
    """Attention to tokens, or to the frames of an encoder."""

    config: Any
    index: int
    is_cross: bool

    @nn.compact
    def __call__(self, hidden_RLH: Array, run: DecoderPass) -> Array:
        """Return the mixed values (R, L, H)."""
        config, rate = self.config, self.config.attention_probs_dropout_prob
        heads = config.num_attention_heads
        queries = split_heads(nn.Dense(config.hidden_size, name="query")(hidden_RLH), heads)

        def project(source: Array) -> KeysAndValues:
            keys, values = (nn.Dense(config.hidden_size, name=name)(source) for name in ("key", "value"))
            return split_heads(keys, heads), split_heads(values, heads)

        if self.is_cross:
            return attend_to_encoder(queries, project, run, self.index, rate)
        return attend_to_tokens(queries, *project(hidden_RLH), run, self.index, rate)


class BertResidual(nn.Module):
    """Projection, residual connection and norm."""

    config: Any

    @nn.compact
    def __call__(self, x: Array, before_RLH: Array, run: DecoderPass) -> Array:
        """Return hidden_RLH."""
        added = dropout(nn.Dense(self.config.hidden_size, name="dense")(x), self.config.hidden_dropout_prob, run)
        normalised: Array = norm("LayerNorm", self.config.layer_norm_eps)(added + before_RLH)
        return normalised


class BertAttention(nn.Module):
    """Attention with its residual."""

    config: Any
    index: int
    is_cross: bool = False

    @nn.compact
    def __call__(self, hidden_RLH: Array, run: DecoderPass) -> Array:
        """Return hidden_RLH."""
        mixed_RLH = BertSelfAttention(self.config, self.index, self.is_cross, name="self")(hidden_RLH, run)
        attended: Array = BertResidual(self.config, name="output")(mixed_RLH, hidden_RLH, run)
        return attended


class BertActivated(nn.Module):
    """A dense layer with its activation."""

    width: int
    act: str

    @nn.compact
    def __call__(self, hidden_RLH: Array) -> Array:
        """Return (R, L, width)."""
        return activation(self.act)(nn.Dense(self.width, name="dense")(hidden_RLH))


class BertLayer(nn.Module):
    """Self-attention, cross-attention and feed-forward network."""

    config: Any
    index: int

    @nn.compact
    def __call__(self, hidden_RLH: Array, run: DecoderPass) -> Array:
        """Return the layer's output."""
        config = self.config
        run.note(hidden_RLH)
        hidden_RLH = BertAttention(config, self.index, name="attention")(hidden_RLH, run)
        if config.add_cross_attention and run.has_encoder:
            hidden_RLH = BertAttention(config, self.index, is_cross=True, name="crossattention")(hidden_RLH, run)
        inner = BertActivated(config.intermediate_size, config.hidden_act, name="intermediate")(hidden_RLH)
        output_RLH: Array = BertResidual(config, name="output")(inner, hidden_RLH, run)
        return output_RLH


class BertEncoder(nn.Module):
    """Container that gives the layers their name in checkpoints."""

    config: Any

    @nn.compact
    def __call__(self, hidden_RLH: Array, run: DecoderPass) -> Array:
        """Return the output of the last layer."""
        layers = Numbered(functools.partial(BertLayer, self.config), self.config.num_hidden_layers, name="layer")
        output_RLH: Array = layers(hidden_RLH, run)
        run.note(output_RLH)
        return output_RLH


class BertBody(nn.Module):
    """Embeddings and layers."""

    config: Any

    @nn.compact
    def __call__(self, ids_RL: Array, positions: Array, run: DecoderPass) -> Array:
        """Return the output of the last layer."""
        hidden_RLH = BertEmbeddings(self.config, name="embeddings")(ids_RL, positions, run)
        output_RLH: Array = BertEncoder(self.config, name="encoder")(hidden_RLH, run)
        return output_RLH


class BertTransform(nn.Module):
    """A dense layer before the vocabulary."""

    config: Any

    @nn.compact
    def __call__(self, hidden_RLH: Array) -> Array:
        """Return hidden_RLH."""
        dense = nn.Dense(self.config.hidden_size, name="dense")
        transformed: Array = norm("LayerNorm", self.config.layer_norm_eps)(
            activation(self.config.hidden_act)(dense(hidden_RLH))
        )
        return transformed


class BertPredictions(nn.Module):
    """Logits over the vocabulary."""

    config: Any

    @nn.compact
    def __call__(self, hidden_RLH: Array) -> Array:
        """Return logits_RLV."""
        transformed = BertTransform(self.config, name="transform")(hidden_RLH)
        logits_RLV: Array = nn.Dense(self.config.vocab_size, name="decoder")(transformed)
        return logits_RLV


class BertHead(nn.Module):
    """Container that gives the head its name in checkpoints."""

    config: Any

    @nn.compact
    def __call__(self, hidden_RLH: Array) -> Array:
        """Return logits_RLV."""
        logits_RLV: Array = BertPredictions(self.config, name="predictions")(hidden_RLH)
        return logits_RLV


class BertModule(nn.Module):
    """BERT as a causal language model."""

    config: Any

    @nn.compact
    def __call__(self, ids_RL: Array, positions: Array, run: DecoderPass) -> Array:
        """Return logits_RLV; `positions` are (R, L) or (L,)."""
        hidden_RLH = BertBody(self.config, name="bert")(ids_RL, positions, run)
        logits_RLV: Array = BertHead(self.config, name="cls")(hidden_RLH)
        return logits_RLV
