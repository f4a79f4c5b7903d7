"""GPT-2 (Radford et al. 2019) in Flax: see models/gpt2.py.

Legend: R rows, L tokens, H hidden, V vocabulary.
"""

from functools import partial

import jax.numpy as jnp
from jax import Array

from raysp.models.flax.decoding import DecoderPass, KeysAndValues, attend_to_encoder, attend_to_tokens
from raysp.models.flax.layers import activation, dense, dropout, embedded, norm, numbered, part, split_heads
from raysp.models.gpt2 import GPT2Config, attention_scale


def attention(config: GPT2Config, index: int, hidden_RLH: Array, run: DecoderPass) -> Array:
    """Return the residual of self-attention."""
    joined = dense("c_attn", 3 * config.n_embd, hidden_RLH)
    q, k, v = (split_heads(x, config.n_head) for x in jnp.split(joined, 3, -1))
    mixed_RLH = attend_to_tokens(q, k, v, run, index, config.attn_pdrop, attention_scale(config, index))
    return dropout(dense("c_proj", config.n_embd, mixed_RLH), config.resid_pdrop, run)


def cross_attention(config: GPT2Config, index: int, hidden_RLH: Array, run: DecoderPass) -> Array:
    """Return the residual of attention to the frames of an encoder."""

    def project(encoder_BSH: Array) -> KeysAndValues:
        k, v = jnp.split(dense("c_attn", 2 * config.n_embd, encoder_BSH), 2, -1)
        return split_heads(k, config.n_head), split_heads(v, config.n_head)

    queries = split_heads(dense("q_attn", config.n_embd, hidden_RLH), config.n_head)
    scale = attention_scale(config, index)
    mixed_RLH = attend_to_encoder(queries, project, run, index, config.attn_pdrop, scale)
    return dropout(dense("c_proj", config.n_embd, mixed_RLH), config.resid_pdrop, run)


def feed_forward(config: GPT2Config, hidden_RLH: Array, run: DecoderPass) -> Array:
    """Return the residual of the feed-forward network."""
    width = 4 * config.n_embd if config.n_inner is None else config.n_inner
    inner = activation(config.activation_function)(dense("c_fc", width, hidden_RLH))
    return dropout(dense("c_proj", config.n_embd, inner), config.resid_pdrop, run)


def block(config: GPT2Config, index: int, hidden_RLH: Array, run: DecoderPass) -> Array:
    """Return hidden_RLH after self-attention, cross-attention and feed-forward network, each after a norm."""
    epsilon = config.layer_norm_epsilon
    run.note(hidden_RLH)
    hidden_RLH = hidden_RLH + part("attn", attention, config, index, norm("ln_1", hidden_RLH, epsilon), run)
    if config.add_cross_attention and run.has_encoder:
        normed_RLH = norm("ln_cross_attn", hidden_RLH, epsilon)
        hidden_RLH = hidden_RLH + part("crossattention", cross_attention, config, index, normed_RLH, run)
    return hidden_RLH + part("mlp", feed_forward, config, norm("ln_2", hidden_RLH, epsilon), run)


def body(config: GPT2Config, ids_RL: Array, positions: Array, run: DecoderPass) -> Array:
    """Return hidden_RLH of tokens at these positions."""
    words_RLH = embedded("wte", config.vocab_size, config.n_embd, ids_RL)
    places = embedded("wpe", config.n_positions, config.n_embd, positions)
    hidden_RLH = dropout(words_RLH + places, config.embd_pdrop, run)
    hidden_RLH = numbered("h", config.n_layer, partial(block, config), hidden_RLH, run)
    hidden_RLH = norm("ln_f", hidden_RLH, config.layer_norm_epsilon)
    run.note(hidden_RLH)
    return hidden_RLH


def gpt2(config: GPT2Config, ids_RL: Array, positions: Array, run: DecoderPass) -> Array:
    """Return logits_RLV of the decoder with its head."""
    hidden_RLH = part("transformer", body, config, ids_RL, positions, run)
    return dense("lm_head", config.vocab_size, hidden_RLH, has_bias=False)
