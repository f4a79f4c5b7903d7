"""The Transformer of wav2vec 2.0 in Flax: see encoder/transformer.py.

Legend: B batch, T frames, C channels of the front end, H hidden.
"""

from functools import partial

from flax import linen as nn
from jax import Array

from raysp.models.encoder.transformer import TransformerConfig
from raysp.models.flax.layers import (
    Pass,
    activation,
    attend,
    attended_keys,
    dense,
    dropout,
    joined_heads,
    norm,
    numbered,
    part,
    split_heads,
    without_padding,
)
from raysp.models.flax.waveform import positions_of


def feature_projection(config: TransformerConfig, features_BTC: Array, run: Pass) -> tuple[Array, Array]:
    """Return hidden_BTH and the normalised features."""
    features_BTC = norm("layer_norm", features_BTC, config.layer_norm_eps)
    hidden_BTH = dense("projection", config.hidden_size, features_BTC)
    return dropout(hidden_BTH, config.feat_proj_dropout, run), features_BTC


def attention(config: TransformerConfig, hidden_BTH: Array, keys_B11T: Array, run: Pass) -> Array:
    """Return a mix of the frames of each row."""
    q, k, v = (
        split_heads(dense(name, config.hidden_size, hidden_BTH), config.num_attention_heads)
        for name in ("q_proj", "k_proj", "v_proj")
    )
    mixed, weights = attend(q, k, v, keys_B11T, rate=config.attention_dropout, run=run)
    if run.with_weights:
        run.attentions.append(weights)
    return dense("out_proj", config.hidden_size, joined_heads(mixed))


def feed_forward(config: TransformerConfig, hidden_BTH: Array, run: Pass) -> Array:
    """Return the residual of two dense layers."""
    inner = activation(config.hidden_act)(dense("intermediate_dense", config.intermediate_size, hidden_BTH))
    inner = dropout(inner, config.activation_dropout, run)
    return dropout(dense("output_dense", hidden_BTH.shape[-1], inner), config.hidden_dropout, run)


def language_adapter(width: int, hidden_BTH: Array) -> Array:
    """Return the residual of a language's adapter (MMS)."""
    inner = nn.relu(dense("linear_1", width, norm("norm", hidden_BTH)))
    return dense("linear_2", hidden_BTH.shape[-1], inner)


def layer(config: TransformerConfig, index: int, hidden_BTH: Array, keys_B11T: Array, run: Pass) -> Array:
    """Return hidden_BTH after attention and feed-forward network, with norms before or after them."""
    epsilon = config.layer_norm_eps
    run.note(hidden_BTH)
    is_stable = config.do_stable_layer_norm
    source_BTH = norm("layer_norm", hidden_BTH, epsilon) if is_stable else hidden_BTH
    attended_BTH = dropout(part("attention", attention, config, source_BTH, keys_B11T, run), config.hidden_dropout, run)
    if not is_stable:
        hidden_BTH = norm("layer_norm", hidden_BTH + attended_BTH, epsilon)
        outer_BTH = part("feed_forward", feed_forward, config, hidden_BTH, run)
        return norm("final_layer_norm", hidden_BTH + outer_BTH, epsilon)
    hidden_BTH = hidden_BTH + attended_BTH
    normed_BTH = norm("final_layer_norm", hidden_BTH, epsilon)
    hidden_BTH = hidden_BTH + part("feed_forward", feed_forward, config, normed_BTH, run)
    if config.adapter_attn_dim is not None:
        hidden_BTH = hidden_BTH + part("adapter_layer", language_adapter, config.adapter_attn_dim, hidden_BTH)
    return hidden_BTH


def encoder(config: TransformerConfig, hidden_BTH: Array, valid_BT: Array, run: Pass) -> Array:
    """Return the output of the last layer."""
    epsilon, is_stable = config.layer_norm_eps, config.do_stable_layer_norm
    hidden_BTH = without_padding(hidden_BTH, valid_BT)
    hidden_BTH = hidden_BTH + part("pos_conv_embed", positions_of, config, hidden_BTH)
    if not is_stable:
        hidden_BTH = norm("layer_norm", hidden_BTH, epsilon)
    hidden_BTH = dropout(hidden_BTH, config.hidden_dropout, run)
    keys_B11T = attended_keys(valid_BT)
    hidden_BTH = numbered("layers", config.num_hidden_layers, partial(layer, config), hidden_BTH, keys_B11T, run)
    run.note(hidden_BTH)
    return norm("layer_norm", hidden_BTH, epsilon) if is_stable else hidden_BTH
