"""GPT-2 (Radford et al. 2019) as a text decoder in Flax: see models/gpt2.py.

Legend: R rows, L tokens, H hidden, V vocabulary.
"""

import functools
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from raysp.models.flax.decoding import DecoderPass, KeysAndValues, attend_to_encoder, attend_to_tokens
from raysp.models.flax.layers import Numbered, activation, dropout, norm, split_heads
from raysp.models.gpt2 import attention_scale


class GPT2Attention(nn.Module):
    """Causal self-attention."""

    config: Any
    index: int

    @nn.compact
    def __call__(self, hidden_RLH: Array, run: DecoderPass) -> Array:
        """Return the residual."""
        config = self.config
        joined = nn.Dense(3 * config.n_embd, name="c_attn")(hidden_RLH)
        q, k, v = (split_heads(x, config.n_head) for x in jnp.split(joined, 3, -1))
        scale = attention_scale(config, self.index)
        mixed_RLH = attend_to_tokens(q, k, v, run, self.index, config.attn_pdrop, scale)
        return dropout(nn.Dense(config.n_embd, name="c_proj")(mixed_RLH), config.resid_pdrop, run)


class GPT2CrossAttention(nn.Module):
    """Attention to the frames of an encoder, with its own query projection."""

    config: Any
    index: int

    @nn.compact
    def __call__(self, hidden_RLH: Array, run: DecoderPass) -> Array:
        """Return the residual."""
        config = self.config

        def project(encoder_BSH: Array) -> KeysAndValues:
            k, v = jnp.split(nn.Dense(2 * config.n_embd, name="c_attn")(encoder_BSH), 2, -1)
            return split_heads(k, config.n_head), split_heads(v, config.n_head)

        queries = split_heads(nn.Dense(config.n_embd, name="q_attn")(hidden_RLH), config.n_head)
        scale = attention_scale(config, self.index)
        mixed_RLH = attend_to_encoder(queries, project, run, self.index, config.attn_pdrop, scale)
        return dropout(nn.Dense(config.n_embd, name="c_proj")(mixed_RLH), config.resid_pdrop, run)


class GPT2MLP(nn.Module):
    """The feed-forward network."""

    config: Any

    @nn.compact
    def __call__(self, hidden_RLH: Array, run: DecoderPass) -> Array:
        """Return the residual."""
        config = self.config
        width = 4 * config.n_embd if config.n_inner is None else config.n_inner
        inner = activation(config.activation_function)(nn.Dense(width, name="c_fc")(hidden_RLH))
        return dropout(nn.Dense(config.n_embd, name="c_proj")(inner), config.resid_pdrop, run)


class GPT2Block(nn.Module):
    """Self-attention, cross-attention and feed-forward network, each preceded by a norm."""

    config: Any
    index: int

    @nn.compact
    def __call__(self, hidden_RLH: Array, run: DecoderPass) -> Array:
        """Return the layer's output."""
        config, eps = self.config, self.config.layer_norm_epsilon
        run.note(hidden_RLH)
        attention = GPT2Attention(config, self.index, name="attn")
        hidden_RLH = hidden_RLH + attention(norm("ln_1", eps)(hidden_RLH), run)
        if config.add_cross_attention and run.has_encoder:
            to_frames = GPT2CrossAttention(config, self.index, name="crossattention")
            hidden_RLH = hidden_RLH + to_frames(norm("ln_cross_attn", eps)(hidden_RLH), run)
        output_RLH: Array = hidden_RLH + GPT2MLP(config, name="mlp")(norm("ln_2", eps)(hidden_RLH), run)
        return output_RLH


class GPT2Body(nn.Module):
    """Embeddings, layers and the last norm."""

    config: Any

    @nn.compact
    def __call__(self, ids_RL: Array, positions: Array, run: DecoderPass) -> Array:
        """Return the normalised output of the last layer."""
        config = self.config
        words_RLH = nn.Embed(config.vocab_size, config.n_embd, name="wte")(ids_RL)
        places = nn.Embed(config.n_positions, config.n_embd, name="wpe")(positions)
        hidden_RLH = dropout(words_RLH + places, config.embd_pdrop, run)
        hidden_RLH = Numbered(functools.partial(GPT2Block, config), config.n_layer, name="h")(hidden_RLH, run)
        output_RLH: Array = norm("ln_f", config.layer_norm_epsilon)(hidden_RLH)
        run.note(output_RLH)
        return output_RLH


class GPT2Module(nn.Module):
    """GPT-2 as a causal language model."""

    config: Any

    @nn.compact
    def __call__(self, ids_RL: Array, positions: Array, run: DecoderPass) -> Array:
        """Return logits_RLV; `positions` are (R, L) or (L,)."""
        hidden_RLH = GPT2Body(self.config, name="transformer")(ids_RL, positions, run)
        head = nn.Dense(self.config.vocab_size, use_bias=False, name="lm_head")
        logits_RLV: Array = head(hidden_RLH)
        return logits_RLV
