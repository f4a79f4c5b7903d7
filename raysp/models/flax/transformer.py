"""The Transformer of wav2vec 2.0 in Flax: see encoder/transformer.py.

Legend: B batch, T frames, C channels of the front end, H hidden.
"""

import functools
from typing import Any

from flax import linen as nn
from jax import Array

from raysp.models.flax.layers import (
    Numbered,
    Pass,
    activation,
    attend,
    attended_keys,
    dropout,
    joined_heads,
    norm,
    split_heads,
    without_padding,
)
from raysp.models.flax.waveform import PositionalConvEmbedding


class FeatureProjection(nn.Module):
    """Normalisation of the front end's features and projection to the hidden width."""

    config: Any

    @nn.compact
    def __call__(self, features_BTC: Array, run: Pass) -> tuple[Array, Array]:
        """Return the projected and the normalised features."""
        features_BTC = norm("layer_norm", self.config.layer_norm_eps)(features_BTC)
        hidden_BTH = nn.Dense(self.config.hidden_size, name="projection")(features_BTC)
        return dropout(hidden_BTH, self.config.feat_proj_dropout, run), features_BTC


class Attention(nn.Module):
    """Multi-head attention of frames over frames."""

    config: Any

    @nn.compact
    def __call__(self, hidden_BTH: Array, keys_B11T: Array, run: Pass) -> Array:
        """Return the attended frames."""
        config = self.config
        q, k, v = (
            split_heads(nn.Dense(config.hidden_size, name=name)(hidden_BTH), config.num_attention_heads)
            for name in ("q_proj", "k_proj", "v_proj")
        )
        mixed, weights = attend(q, k, v, keys_B11T, rate=config.attention_dropout, run=run)
        if run.with_weights:
            run.attentions.append(weights)
        attended_BTH: Array = nn.Dense(config.hidden_size, name="out_proj")(joined_heads(mixed))
        return attended_BTH


class FeedForward(nn.Module):
    """Two dense layers with an activation between them."""

    config: Any

    @nn.compact
    def __call__(self, hidden_BTH: Array, run: Pass) -> Array:
        """Return (B, T, H), each frame on its own."""
        config = self.config
        inner = activation(config.hidden_act)(nn.Dense(config.intermediate_size, name="intermediate_dense")(hidden_BTH))
        inner = dropout(inner, config.activation_dropout, run)
        return dropout(nn.Dense(hidden_BTH.shape[-1], name="output_dense")(inner), config.hidden_dropout, run)


class AttnAdapterLayer(nn.Module):
    """A narrow residual network that adapts a layer to a language (MMS, Pratap et al. 2023)."""

    width: int

    @nn.compact
    def __call__(self, hidden_BTH: Array) -> Array:
        """Return the residual (B, T, H)."""
        inner = nn.relu(nn.Dense(self.width, name="linear_1")(norm("norm")(hidden_BTH)))
        adapted_BTH: Array = nn.Dense(hidden_BTH.shape[-1], name="linear_2")(inner)
        return adapted_BTH


class EncoderLayer(nn.Module):
    """Attention and feed-forward, normalised before with `do_stable_layer_norm`, else after."""

    config: Any
    index: int

    @nn.compact
    def __call__(self, hidden_BTH: Array, keys_B11T: Array, run: Pass) -> Array:
        """Return the layer's output."""
        config = self.config
        attention, feed_forward = Attention(config, name="attention"), FeedForward(config, name="feed_forward")
        first, last = (norm(name, config.layer_norm_eps) for name in ("layer_norm", "final_layer_norm"))
        run.note(hidden_BTH)
        if not config.do_stable_layer_norm:
            attended_BTH = dropout(attention(hidden_BTH, keys_B11T, run), config.hidden_dropout, run)
            hidden_BTH = first(hidden_BTH + attended_BTH)
            output_BTH: Array = last(hidden_BTH + feed_forward(hidden_BTH, run))
            return output_BTH
        attended_BTH = dropout(attention(first(hidden_BTH), keys_B11T, run), config.hidden_dropout, run)
        hidden_BTH = hidden_BTH + attended_BTH
        hidden_BTH = hidden_BTH + feed_forward(last(hidden_BTH), run)
        if config.adapter_attn_dim is not None:
            hidden_BTH = hidden_BTH + AttnAdapterLayer(config.adapter_attn_dim, name="adapter_layer")(hidden_BTH)
        return hidden_BTH


class Encoder(nn.Module):
    """The positional convolution and the layers."""

    config: Any

    @nn.compact
    def __call__(self, hidden_BTH: Array, valid_BT: Array, run: Pass) -> Array:
        """Return the last hidden state."""
        config = self.config
        last_norm = norm("layer_norm", config.layer_norm_eps)
        hidden_BTH = without_padding(hidden_BTH, valid_BT)
        hidden_BTH = hidden_BTH + PositionalConvEmbedding(config, name="pos_conv_embed")(hidden_BTH)
        if not config.do_stable_layer_norm:
            hidden_BTH = last_norm(hidden_BTH)
        hidden_BTH = dropout(hidden_BTH, config.hidden_dropout, run)
        layers = Numbered(functools.partial(EncoderLayer, config), config.num_hidden_layers, name="layers")
        hidden_BTH = layers(hidden_BTH, attended_keys(valid_BT), run)
        run.note(hidden_BTH)
        return last_norm(hidden_BTH) if config.do_stable_layer_norm else hidden_BTH
