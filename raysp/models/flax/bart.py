"""The decoder of BART (Lewis et al. 2019) in Flax: see models/bart.py.

Legend: R rows, L tokens, H hidden, V vocabulary.
"""

import functools
import math
from typing import Any

from flax import linen as nn
from jax import Array

from raysp.models.bart import POSITION_OFFSET
from raysp.models.flax.decoding import DecoderPass, KeysAndValues, attend_to_encoder, attend_to_tokens
from raysp.models.flax.layers import Numbered, activation, dropout, norm, split_heads


class BartAttention(nn.Module):
    """Attention to tokens, or to the frames of an encoder."""

    config: Any
    index: int
    is_cross: bool = False

    @nn.compact
    def __call__(self, hidden_RLH: Array, run: DecoderPass) -> Array:
        """Return the residual."""
        config, heads = self.config, self.config.decoder_attention_heads

        def project(source: Array) -> KeysAndValues:
            keys, values = (nn.Dense(config.d_model, name=name)(source) for name in ("k_proj", "v_proj"))
            return split_heads(keys, heads), split_heads(values, heads)

        queries = split_heads(nn.Dense(config.d_model, name="q_proj")(hidden_RLH), heads)
        if self.is_cross:
            mixed_RLH = attend_to_encoder(queries, project, run, self.index, config.attention_dropout)
        else:
            mixed_RLH = attend_to_tokens(queries, *project(hidden_RLH), run, self.index, config.attention_dropout)
        return dropout(nn.Dense(config.d_model, name="out_proj")(mixed_RLH), config.dropout, run)


class BartLayer(nn.Module):
    """Self-attention, cross-attention and feed-forward network, each followed by a norm."""

    config: Any
    index: int

    @nn.compact
    def __call__(self, hidden_RLH: Array, run: DecoderPass) -> Array:
        """Return the layer's output."""
        run.note(hidden_RLH)
        attention = BartAttention(self.config, self.index, name="self_attn")
        inner = nn.Dense(self.config.decoder_ffn_dim, name="fc1")
        outer = nn.Dense(self.config.d_model, name="fc2")

        def feed_forward(x_RLH: Array) -> Array:
            activated = activation(self.config.activation_function)(inner(x_RLH))
            return dropout(outer(dropout(activated, self.config.activation_dropout, run)), self.config.dropout, run)

        hidden_RLH = norm("self_attn_layer_norm")(hidden_RLH + attention(hidden_RLH, run))
        if run.has_encoder:
            to_frames = BartAttention(self.config, self.index, is_cross=True, name="encoder_attn")
            hidden_RLH = norm("encoder_attn_layer_norm")(hidden_RLH + to_frames(hidden_RLH, run))
        output_RLH: Array = norm("final_layer_norm")(hidden_RLH + feed_forward(hidden_RLH))
        return output_RLH


class BartDecoder(nn.Module):
    """Embeddings and layers."""

    config: Any

    @nn.compact
    def __call__(self, ids_RL: Array, positions: Array, run: DecoderPass) -> Array:
        """Return the output of the last layer."""
        config = self.config
        scale = math.sqrt(config.d_model) if config.scale_embedding else 1.0
        words_RLH = nn.Embed(config.vocab_size, config.d_model, name="embed_tokens")(ids_RL) * scale
        table = nn.Embed(config.max_position_embeddings + POSITION_OFFSET, config.d_model, name="embed_positions")
        hidden_RLH = norm("layernorm_embedding")(words_RLH + table(positions + POSITION_OFFSET))
        hidden_RLH = dropout(hidden_RLH, config.dropout, run)
        layers = Numbered(functools.partial(BartLayer, config), config.decoder_layers, name="layers")
        output_RLH: Array = layers(hidden_RLH, run)
        run.note(output_RLH)
        return output_RLH


class BartDecoderWrapper(nn.Module):
    """Container that gives the decoder its name in checkpoints."""

    config: Any

    @nn.compact
    def __call__(self, ids_RL: Array, positions: Array, run: DecoderPass) -> Array:
        """Return the output of the last layer."""
        output_RLH: Array = BartDecoder(self.config, name="decoder")(ids_RL, positions, run)
        return output_RLH


class BartModule(nn.Module):
    """BART's decoder as a causal language model."""

    config: Any

    @nn.compact
    def __call__(self, ids_RL: Array, positions: Array, run: DecoderPass) -> Array:
        """Return logits_RLV; `positions` are (R, L) or (L,)."""
        hidden_RLH = BartDecoderWrapper(self.config, name="model")(ids_RL, positions, run)
        head = nn.Dense(self.config.vocab_size, use_bias=False, name="lm_head")
        logits_RLV: Array = head(hidden_RLH)
        return logits_RLV
