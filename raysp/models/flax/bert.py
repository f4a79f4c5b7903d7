"""BERT (Devlin et al. 2018) as a decoder in Flax: see models/bert.py.

Legend: R rows, L tokens, H hidden, V vocabulary.
"""

from functools import partial

from jax import Array

from raysp.models.bert import BertConfig
from raysp.models.flax.decoding import DecoderPass, split_attention
from raysp.models.flax.layers import activation, dense, dropout, embedded, norm, numbered, part

PROJECTIONS = ("query", "key", "value")


def embeddings(config: BertConfig, ids_RL: Array, positions: Array, run: DecoderPass) -> Array:
    """Return the first hidden_RLH, of words, positions and token types; all types are 0."""
    width = config.hidden_size
    words_RLH = embedded("word_embeddings", config.vocab_size, width, ids_RL)
    places = embedded("position_embeddings", config.max_position_embeddings, width, positions)
    types = embedded("token_type_embeddings", config.type_vocab_size, width, positions * 0)
    hidden_RLH = norm("LayerNorm", words_RLH + types + places, config.layer_norm_eps)
    return dropout(hidden_RLH, config.hidden_dropout_prob, run)


def residual(config: BertConfig, x: Array, before_RLH: Array, run: DecoderPass) -> Array:
    """Return hidden_RLH after projection, residual connection and norm."""
    added_RLH = dropout(dense("dense", config.hidden_size, x), config.hidden_dropout_prob, run)
    return norm("LayerNorm", added_RLH + before_RLH, config.layer_norm_eps)


def attention(config: BertConfig, index: int, is_cross: bool, hidden_RLH: Array, run: DecoderPass) -> Array:
    """Return attention to tokens, or to the frames of an encoder, with its residual."""
    width, heads, rate = config.hidden_size, config.num_attention_heads, config.attention_probs_dropout_prob
    arguments = (PROJECTIONS, width, heads, hidden_RLH, run, index, rate, is_cross)
    return part("output", residual, config, part("self", split_attention, *arguments), hidden_RLH, run)


def layer(config: BertConfig, index: int, hidden_RLH: Array, run: DecoderPass) -> Array:
    """Return hidden_RLH after self-attention, cross-attention and feed-forward network."""
    run.note(hidden_RLH)
    hidden_RLH = part("attention", attention, config, index, False, hidden_RLH, run)
    if config.add_cross_attention and run.has_encoder:
        hidden_RLH = part("crossattention", attention, config, index, True, hidden_RLH, run)
    inner = part("intermediate", dense, "dense", config.intermediate_size, hidden_RLH)
    return part("output", residual, config, activation(config.hidden_act)(inner), hidden_RLH, run)


def body(config: BertConfig, ids_RL: Array, positions: Array, run: DecoderPass) -> Array:
    """Return hidden_RLH of tokens at these positions."""
    hidden_RLH = part("embeddings", embeddings, config, ids_RL, positions, run)
    hidden_RLH = numbered("encoder/layer", config.num_hidden_layers, partial(layer, config), hidden_RLH, run)
    run.note(hidden_RLH)
    return hidden_RLH


def transform(config: BertConfig, hidden_RLH: Array) -> Array:
    """Return hidden_RLH for the layer over the vocabulary."""
    inner = activation(config.hidden_act)(dense("dense", config.hidden_size, hidden_RLH))
    return norm("LayerNorm", inner, config.layer_norm_eps)


def predictions(config: BertConfig, hidden_RLH: Array) -> Array:
    """Return logits_RLV."""
    return dense("decoder", config.vocab_size, part("transform", transform, config, hidden_RLH))


def bert(config: BertConfig, ids_RL: Array, positions: Array, run: DecoderPass) -> Array:
    """Return logits_RLV of the decoder with its head."""
    hidden_RLH = part("bert", body, config, ids_RL, positions, run)
    return part("cls/predictions", predictions, config, hidden_RLH)
