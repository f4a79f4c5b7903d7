"""The decoders of BART (Lewis et al. 2019) and mBART (Liu et al. 2020) in Flax: see models/bart.py and mbart.py.

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
    """Self-attention, cross-attention and feed-forward network, with a norm after each, or before (mBART)."""

    config: Any
    norms_first: bool
    index: int

    @nn.compact
    def __call__(self, hidden_RLH: Array, run: DecoderPass) -> Array:
        """Return the layer's output."""
        run.note(hidden_RLH)
        attention = BartAttention(self.config, self.index, name="self_attn")
        to_frames = BartAttention(self.config, self.index, is_cross=True, name="encoder_attn")
        inner = nn.Dense(self.config.decoder_ffn_dim, name="fc1")
        outer = nn.Dense(self.config.d_model, name="fc2")

        def feed_forward(x_RLH: Array, run: DecoderPass) -> Array:
            activated = activation(self.config.activation_function)(inner(x_RLH))
            return dropout(outer(dropout(activated, self.config.activation_dropout, run)), self.config.dropout, run)

        for function, name in (
            (attention, "self_attn_layer_norm"),
            (to_frames, "encoder_attn_layer_norm"),
            (feed_forward, "final_layer_norm"),
        ):
            layer_norm = norm(name)
            if self.norms_first:
                hidden_RLH = hidden_RLH + function(layer_norm(hidden_RLH), run)
            else:
                hidden_RLH = layer_norm(hidden_RLH + function(hidden_RLH, run))
        return hidden_RLH


class BartDecoder(nn.Module):
    """Embeddings, layers, and mBART's last norm."""

    config: Any
    norms_first: bool

    @nn.compact
    def __call__(self, ids_RL: Array, positions: Array, run: DecoderPass) -> Array:
        """Return the output of the last layer."""
        config = self.config
        scale = math.sqrt(config.d_model) if config.scale_embedding else 1.0
        words_RLH = nn.Embed(config.vocab_size, config.d_model, name="embed_tokens")(ids_RL) * scale
        table = nn.Embed(config.max_position_embeddings + POSITION_OFFSET, config.d_model, name="embed_positions")
        hidden_RLH = norm("layernorm_embedding")(words_RLH + table(positions + POSITION_OFFSET))
        hidden_RLH = dropout(hidden_RLH, config.dropout, run)
        make = functools.partial(BartLayer, config, self.norms_first)
        hidden_RLH = Numbered(make, config.decoder_layers, name="layers")(hidden_RLH, run)
        output_RLH: Array = norm("layer_norm")(hidden_RLH) if self.norms_first else hidden_RLH
        run.note(output_RLH)
        return output_RLH


class BartDecoderWrapper(nn.Module):
    """Container that gives the decoder its name in checkpoints."""

    config: Any
    norms_first: bool

    @nn.compact
    def __call__(self, ids_RL: Array, positions: Array, run: DecoderPass) -> Array:
        """Return the output of the last layer."""
        output_RLH: Array = BartDecoder(self.config, self.norms_first, name="decoder")(ids_RL, positions, run)
        return output_RLH


class BartModule(nn.Module):
    """BART's decoder as a causal language model."""

    config: Any
    norms_first: bool = False

    @nn.compact
    def __call__(self, ids_RL: Array, positions: Array, run: DecoderPass) -> Array:
        """Return logits_RLV; `positions` are (R, L) or (L,)."""
        hidden_RLH = BartDecoderWrapper(self.config, self.norms_first, name="model")(ids_RL, positions, run)
        head = nn.Dense(self.config.vocab_size, use_bias=False, name="lm_head")
        logits_RLV: Array = head(hidden_RLH[:, -1:] if run.is_last_only else hidden_RLH)
        return logits_RLV


MBartModule = functools.partial(BartModule, norms_first=True)
"""mBART's decoder: each norm precedes its sublayer, and one follows the last layer."""
