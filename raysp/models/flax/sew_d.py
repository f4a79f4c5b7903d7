"""SEW-D (Wu et al. 2021, arXiv:2109.06870) in Flax: a squeezed encoder with the attention of DeBERTa.

Legend: B batch, S samples, T frames, Q squeezed frames, C channels of the front end, H hidden, A heads, R rows of the
table of distances, F frames of a group.
"""

import functools
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from raysp.models.encoder.relative_attention import log_buckets
from raysp.models.flax.encoders import FlaxEncoderForCTC, FlaxEncoderModel
from raysp.models.flax.layers import (
    Numbered,
    Pass,
    activation,
    attend,
    attended_keys,
    by_distance,
    dropout,
    gathered,
    is_before,
    joined_heads,
    norm,
    split_heads,
    without_padding,
)
from raysp.models.flax.transformer import Encoded
from raysp.models.flax.waveform import FeatureEncoder, WeightNormConv, num_frames_of
from raysp.models.sew_d import SEWDForCTC, SEWDModel


class PositionalConvEmbedding(nn.Module):
    """Positions of squeezed frames by a wide convolution over frames."""

    config: Any

    @nn.compact
    def __call__(self, hidden_BTH: Array) -> Array:
        """Return the residual (B, Q, H)."""
        config = self.config
        kernel, groups = config.num_conv_pos_embeddings, config.num_conv_pos_embedding_groups
        x_BQH = WeightNormConv(kernel, groups, config.squeeze_factor, name="conv")(hidden_BTH)
        num_squeezed = hidden_BTH.shape[1] // config.squeeze_factor
        return activation(config.feat_extract_activation)(x_BQH[:, :num_squeezed])


class DisentangledSelfAttention(nn.Module):
    """Attention by content, and by content to distance ("c2p") and distance to content ("p2c")."""

    config: Any

    @nn.compact
    def __call__(self, hidden_BQH: Array, keys_B11Q: Array, table_RH: Array | None, run: Pass) -> Array:
        """Return the mixed values (B, Q, H)."""
        config, heads = self.config, self.config.num_attention_heads
        dense = {name: nn.Dense(config.hidden_size, name=f"{name}_proj") for name in ("query", "key", "value")}
        q, k, v = (split_heads(projection(hidden_BQH), heads) for projection in dense.values())
        has_c2p, has_p2c = ("c2p" in config.pos_att_type, "p2c" in config.pos_att_type)
        scale = (config.hidden_size // heads * (1 + has_c2p + has_p2c)) ** -0.5
        bias: Array | None = None
        if table_RH is not None and (has_c2p or has_p2c):
            table_RH = dropout(table_RH, config.activation_dropout, run)
            index_QQ = self._rows(hidden_BQH.shape[1])
            bias = jnp.zeros((), q.dtype)
            if has_c2p:
                keys = dense["key"] if config.share_att_key else nn.Dense(config.hidden_size, name="pos_key_proj")
                bias = bias + _read(q * scale, split_heads(keys(table_RH)[None], heads), index_QQ)
            if has_p2c:
                shared = config.share_att_key
                queries = dense["query"] if shared else nn.Dense(config.hidden_size, name="pos_query_proj")
                product = _read(k * scale, split_heads(queries(table_RH)[None], heads), index_QQ.T)
                bias = bias + product.swapaxes(2, 3)
        mixed, weights = attend(q, k, v, keys_B11Q, rate=config.attention_dropout, run=run, scale=scale, bias=bias)
        if run.with_weights:
            run.attentions.append(weights)
        return joined_heads(mixed)

    def _rows(self, num_squeezed: int) -> Array:
        """Return index_QQ: at i, j the row of the table for `i - j`."""
        config, span = self.config, self.config.distance_span
        buckets_W = log_buckets(num_squeezed, config.position_buckets, config.furthest_distance)
        return by_distance(jnp.asarray((buckets_W + span).clamp(0, 2 * span - 1).numpy()))


def _read(x_BAQD: Array, table_1ARD: Array, index_QQ: Array) -> Array:
    """Return the product of each frame with the rows of the table that it reads."""
    return gathered(jnp.einsum("baqd,ard->baqr", x_BAQD, table_1ARD[0]), index_QQ)


class Output(nn.Module):
    """Projection, residual and normalisation."""

    config: Any

    @nn.compact
    def __call__(self, inner_BQI: Array, residual_BQH: Array, run: Pass) -> Array:
        """Return the normalised sum."""
        config = self.config
        projected_BQH = dropout(nn.Dense(config.hidden_size, name="dense")(inner_BQI), config.activation_dropout, run)
        normalised_BQH: Array = norm("LayerNorm", config.layer_norm_eps)(projected_BQH + residual_BQH)
        return normalised_BQH


class Attention(nn.Module):
    """Attention and its output, named as in checkpoints."""

    config: Any

    @nn.compact
    def __call__(self, hidden_BQH: Array, keys_B11Q: Array, table_RH: Array | None, run: Pass) -> Array:
        """Return the attended frames."""
        mixed_BQH = DisentangledSelfAttention(self.config, name="self")(hidden_BQH, keys_B11Q, table_RH, run)
        attended_BQH: Array = Output(self.config, name="output")(mixed_BQH, hidden_BQH, run)
        return attended_BQH


class Intermediate(nn.Module):
    """The first dense layer of the feed-forward."""

    config: Any

    @nn.compact
    def __call__(self, hidden_BQH: Array) -> Array:
        """Return (B, Q, I), each frame on its own."""
        dense = nn.Dense(self.config.intermediate_size, name="dense")
        return activation(self.config.hidden_act)(dense(hidden_BQH))


class Layer(nn.Module):
    """Attention and feed-forward, each followed by normalisation."""

    config: Any
    index: int

    @nn.compact
    def __call__(self, hidden_BQH: Array, of_all: tuple[Any, ...], run: Pass) -> Array:
        """Return the layer's output; `of_all` has the valid frames, the table, and the convolution or None."""
        config, (valid_BQ, table_RH, conv) = self.config, of_all
        if self.index == 0:
            run.note(hidden_BQH)
        attended_BQH = Attention(config, name="attention")(hidden_BQH, attended_keys(valid_BQ), table_RH, run)
        inner_BQI = Intermediate(config, name="intermediate")(attended_BQH)
        output_BQH: Array = Output(config, name="output")(inner_BQI, attended_BQH, run)
        run.note(output_BQH)
        if self.index == 0 and conv is not None:
            output_BQH = conv(hidden_BQH, output_BQH, valid_BQ, run)
        return output_BQH


class ConvLayer(nn.Module):
    """A convolution parallel to the first layer, for configurations with `conv_kernel_size`."""

    config: Any

    @nn.compact
    def __call__(self, hidden_BQH: Array, residual_BQH: Array, valid_BQ: Array, run: Pass) -> Array:
        """Return the first layer's output with the convolution of its input added; zero where not valid."""
        config = self.config
        kernel, groups = config.conv_kernel_size, getattr(config, "conv_groups", 1)
        half = [((kernel - 1) // 2, (kernel - 1) // 2)]
        conv = nn.Conv(config.hidden_size, (kernel,), padding=half, feature_group_count=groups, name="conv")
        x_BQH = without_padding(conv(hidden_BQH), valid_BQ)
        x_BQH = dropout(x_BQH, getattr(config, "hidden_dropout_prob", config.hidden_dropout), run)
        x_BQH = activation(getattr(config, "conv_act", "tanh"))(x_BQH)
        return without_padding(norm("LayerNorm", config.layer_norm_eps)(residual_BQH + x_BQH), valid_BQ)


class TransformerEncoder(nn.Module):
    """The layers, and the table of distances that they share."""

    config: Any

    @nn.compact
    def __call__(self, hidden_BQH: Array, valid_BQ: Array, run: Pass) -> Array:
        """Return the last hidden state."""
        config, table_RH = self.config, None
        if config.relative_attention:
            rows = 2 * config.distance_span
            table_RH = nn.Embed(rows, config.hidden_size, name="rel_embeddings")(jnp.arange(rows))
            if "layer_norm" in [name.strip() for name in config.norm_rel_ebd.lower().split("|")]:
                table_RH = norm("LayerNorm", config.layer_norm_eps)(table_RH)
        conv = ConvLayer(config, name="conv") if getattr(config, "conv_kernel_size", 0) > 0 else None
        layers = Numbered(functools.partial(Layer, config), config.num_hidden_layers, name="layer")
        output_BQH: Array = layers(hidden_BQH, (valid_BQ, table_RH, conv), run)
        return output_BQH


class Upsampling(nn.Module):
    """Expansion of each frame into `squeeze_factor` frames."""

    config: Any

    @nn.compact
    def __call__(self, hidden_BQH: Array) -> Array:
        """Return (B, Q * squeeze_factor, H)."""
        batch, _, width = hidden_BQH.shape
        wide_BQI = nn.Dense(width * self.config.squeeze_factor, name="projection")(hidden_BQH)
        return activation(self.config.feat_extract_activation)(wide_BQI).reshape(batch, -1, width)


class SqueezingEncoder(nn.Module):
    """The layers between squeezing and upsampling of frames (Wu et al. 2021, section 4.3)."""

    config: Any

    @nn.compact
    def __call__(self, hidden_BTH: Array, num_frames_B: Array, run: Pass) -> Array:
        """Return the last hidden state, zero after the last whole group of frames of a row."""
        config, (batch, num_frames, width) = self.config, hidden_BTH.shape
        num_squeezed = num_frames // config.squeeze_factor
        valid_BQ = is_before(num_frames_B // config.squeeze_factor, num_squeezed)
        hidden_BTH = without_padding(hidden_BTH, is_before(num_frames_B, num_frames))
        whole_BTH = hidden_BTH[:, : num_squeezed * config.squeeze_factor]
        means_BQH = whole_BTH.reshape(batch, num_squeezed, config.squeeze_factor, width).mean(2)
        hidden_BQH = means_BQH + PositionalConvEmbedding(config, name="pos_conv_embed")(hidden_BTH)
        hidden_BQH = without_padding(hidden_BQH, valid_BQ)
        hidden_BQH = TransformerEncoder(config, name="encoder")(hidden_BQH, valid_BQ, run)
        stretched_BTH = Upsampling(config, name="upsample")(hidden_BQH)
        stretched_BTH = without_padding(stretched_BTH, jnp.repeat(valid_BQ, config.squeeze_factor, axis=1))
        return jnp.pad(stretched_BTH, ((0, 0), (0, num_frames - stretched_BTH.shape[1]), (0, 0)))


class SEWDModule(nn.Module):
    """The encoder without a head."""

    config: Any

    @nn.compact
    def __call__(self, inputs: Array, mask_BS: Array, run: Pass) -> Encoded:
        """Encode waveforms (B, S); `mask_BS` is true for samples of the row, which come first."""
        config, num_samples_B = self.config, mask_BS.sum(-1)
        features_BTC = FeatureEncoder(config, name="feature_extractor")(inputs, num_samples_B, run)
        num_frames_B = num_frames_of(num_samples_B, config.conv_kernel, config.conv_stride)
        hidden_BTH = norm("layer_norm", config.feature_layer_norm_eps)(features_BTC)
        if config.conv_dim[-1] != config.hidden_size:
            hidden_BTH = nn.Dense(config.hidden_size, name="feature_projection")(hidden_BTH)
        hidden_BTH = dropout(hidden_BTH, config.feat_proj_dropout, run)
        hidden_BTH = SqueezingEncoder(config, name="encoder")(hidden_BTH, num_frames_B, run)
        return Encoded(hidden_BTH, features_BTC, is_before(num_frames_B, hidden_BTH.shape[1]))


class FlaxSEWDModel(FlaxEncoderModel):
    """The encoder without a head."""

    torch_class = SEWDModel
    encoder_module = SEWDModule


class FlaxSEWDForCTC(FlaxEncoderForCTC):
    """The encoder with a linear head over the vocabulary; `pad_token_id` is the blank."""

    torch_class = SEWDForCTC
    encoder_module = SEWDModule
