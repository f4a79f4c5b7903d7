"""The decoder of BART (Lewis et al. 2019) in Flax: see models/bart.py.

Legend: R rows, L tokens, H hidden, V vocabulary.
"""

import math
from functools import partial

from jax import Array

from raysp.models.bart import POSITION_OFFSET, BartConfig
from raysp.models.flax.decoding import DecoderPass, split_attention
from raysp.models.flax.layers import activation, dense, dropout, embedded, norm, numbered, part

PROJECTIONS = ("q_proj", "k_proj", "v_proj")


def attention(config: BartConfig, index: int, is_cross: bool, hidden_RLH: Array, run: DecoderPass) -> Array:
    """Return the residual of attention to tokens, or to the frames of an encoder."""
    heads, rate = config.decoder_attention_heads, config.attention_dropout
    mixed_RLH = split_attention(PROJECTIONS, config.d_model, heads, hidden_RLH, run, index, rate, is_cross)
    return dropout(dense("out_proj", config.d_model, mixed_RLH), config.dropout, run)


def layer(config: BartConfig, index: int, hidden_RLH: Array, run: DecoderPass) -> Array:
    """Return hidden_RLH after self-attention, cross-attention and feed-forward network, each followed by a norm."""
    run.note(hidden_RLH)
    attended_RLH = part("self_attn", attention, config, index, False, hidden_RLH, run)
    hidden_RLH = norm("self_attn_layer_norm", hidden_RLH + attended_RLH)
    if run.has_encoder:
        attended_RLH = part("encoder_attn", attention, config, index, True, hidden_RLH, run)
        hidden_RLH = norm("encoder_attn_layer_norm", hidden_RLH + attended_RLH)
    inner = activation(config.activation_function)(dense("fc1", config.decoder_ffn_dim, hidden_RLH))
    inner = dropout(inner, config.activation_dropout, run)
    outer_RLH = dropout(dense("fc2", config.d_model, inner), config.dropout, run)
    return norm("final_layer_norm", hidden_RLH + outer_RLH)


def decoder(config: BartConfig, ids_RL: Array, positions: Array, run: DecoderPass) -> Array:
    """Return hidden_RLH of tokens at these positions."""
    width = config.d_model
    words_RLH = embedded("embed_tokens", config.vocab_size, width, ids_RL)
    words_RLH = words_RLH * (math.sqrt(width) if config.scale_embedding else 1.0)
    num_places = config.max_position_embeddings + POSITION_OFFSET
    places = embedded("embed_positions", num_places, width, positions + POSITION_OFFSET)
    hidden_RLH = dropout(norm("layernorm_embedding", words_RLH + places), config.dropout, run)
    hidden_RLH = numbered("layers", config.decoder_layers, partial(layer, config), hidden_RLH, run)
    run.note(hidden_RLH)
    return hidden_RLH


def bart(config: BartConfig, ids_RL: Array, positions: Array, run: DecoderPass) -> Array:
    """Return logits_RLV of the decoder with its head."""
    hidden_RLH = part("model/decoder", decoder, config, ids_RL, positions, run)
    return dense("lm_head", config.vocab_size, hidden_RLH, has_bias=False)
