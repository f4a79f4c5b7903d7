"""Wav2Vec2-BERT (Communication et al. 2023, arXiv:2312.05187) in Flax: a Conformer over log-mel features.

Legend: B batch, T frames, C features of a frame, H hidden, A heads, D head, R rows of a table of distances, W distances
of T frames (2T - 1).
"""

import functools
from typing import Any

import jax.numpy as jnp
import torch
from flax import linen as nn
from jax import Array

from raysp.models.encoder.conformer import rotations, sinusoids
from raysp.models.encoder.conformer_adapter import adapted_frames
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
from raysp.models.flax.transformer import Encoded, FeatureProjection, FeedForward
from raysp.models.flax.waveform import glu
from raysp.models.wav2vec2_bert import Wav2Vec2BertForCTC, Wav2Vec2BertModel


class ConvolutionModule(nn.Module):
    """Depthwise convolution over past frames."""

    config: Any

    @nn.compact
    def __call__(self, hidden_BTH: Array, valid_BT: Array, run: Pass) -> Array:
        """Return the residual (B, T, H)."""
        config, width = self.config, self.config.hidden_size
        past = config.conv_depthwise_kernel_size - 1
        x_BTH = without_padding(norm("layer_norm", config.layer_norm_eps)(hidden_BTH), valid_BT)
        x_BTH = glu(nn.Conv(2 * width, (1,), use_bias=False, name="pointwise_conv1")(x_BTH))
        conv = nn.Conv(
            width, (past + 1,), padding=[(past, 0)], feature_group_count=width, use_bias=False, name="depthwise_conv"
        )
        x_BTH = norm("depthwise_layer_norm", config.layer_norm_eps)(conv(x_BTH))
        x_BTH = activation(config.hidden_act)(x_BTH)
        x_BTH = nn.Conv(width, (1,), use_bias=False, name="pointwise_conv2")(x_BTH)
        return dropout(x_BTH, config.conformer_conv_dropout, run)


class SelfAttention(nn.Module):
    """Multi-head self-attention over frames, with one kind of positions."""

    config: Any
    kind: str | None

    @nn.compact
    def __call__(self, hidden_BTH: Array, keys_B11T: Array, run: Pass) -> Array:
        """Return the attended frames."""
        width, heads = hidden_BTH.shape[-1], self.config.num_attention_heads
        turned_BTH = self._rotated(hidden_BTH) if self.kind == "rotary" else hidden_BTH
        q, k, v = (
            split_heads(nn.Dense(width, name=name)(x), heads)
            for name, x in (("linear_q", turned_BTH), ("linear_k", turned_BTH), ("linear_v", hidden_BTH))
        )
        bias: Array | None = None
        if self.kind == "relative_key":
            bias = self._key_bias(q)
        elif self.kind == "relative":
            u_AD, v_AD = (
                self.param(name, nn.initializers.zeros, (heads, width // heads))
                for name in ("pos_bias_u", "pos_bias_v")
            )
            bias = self._sinusoid_bias(q + v_AD[:, None], width)
            q = q + u_AD[:, None]
        mixed, weights = attend(q, k, v, keys_B11T, rate=self.config.attention_dropout, run=run, bias=bias)
        if run.with_weights:
            run.attentions.append(weights)
        attended_BTH: Array = nn.Dense(width, name="linear_out")(joined_heads(mixed))
        return attended_BTH

    def _key_bias(self, q_BATD: Array) -> Array:
        """Return `q_i . embedding(j - i)`, scaled (Shaw et al. 2018)."""
        config, num_frames = self.config, q_BATD.shape[2]
        left, right = config.left_max_position_embeddings, config.right_max_position_embeddings
        table = nn.Embed(left + right + 1, q_BATD.shape[-1], name="distance_embedding")
        distance_W = jnp.arange(1 - num_frames, num_frames).clip(-left, right) + left
        scaled_BATD = q_BATD * q_BATD.shape[-1] ** -0.5
        return gathered(scaled_BATD @ table(jnp.arange(left + right + 1)).T, by_distance(distance_W))

    def _sinusoid_bias(self, q_BATD: Array, width: int) -> Array:
        """Return `q_i . projection(i - j)`, scaled (Dai et al. 2019, section 3.3)."""
        num_frames, heads = q_BATD.shape[2], q_BATD.shape[1]
        waves_WH = jnp.asarray(sinusoids(num_frames, width, torch.empty(0)).numpy(), q_BATD.dtype)
        table_WH = nn.Dense(width, use_bias=False, name="linear_pos")(waves_WH)
        table_AWD = split_heads(table_WH[None], heads)[0]
        product_BATW = jnp.einsum("batd,awd->batw", q_BATD * q_BATD.shape[-1] ** -0.5, table_AWD)
        return gathered(product_BATW, by_distance(jnp.arange(2 * num_frames - 1)))

    def _rotated(self, hidden_BTH: Array) -> Array:
        """Return frames with each head rotated by its place; the halves of a head are the two coordinates."""
        config, (batch, num_frames, width) = self.config, hidden_BTH.shape
        head_size = width // config.num_attention_heads
        turns = rotations(num_frames, head_size, config.rotary_embedding_base, torch.empty(0)).numpy()
        cosines, sines = (jnp.asarray(turn, hidden_BTH.dtype) for turn in turns)
        x_BTAD = hidden_BTH.reshape(batch, num_frames, -1, head_size)
        first, second = jnp.split(x_BTAD, 2, -1)
        turned_BTAD = x_BTAD * cosines + jnp.concatenate([-second, first], -1) * sines
        return turned_BTAD.reshape(batch, num_frames, width)


class ConformerLayer(nn.Module):
    """A Conformer layer: half a feed-forward, attention, convolution, half a feed-forward."""

    config: Any
    index: int

    @nn.compact
    def __call__(self, hidden_BTH: Array, valid_BT: Array, run: Pass) -> Array:
        """Return the layer's output."""
        config, eps = self.config, self.config.layer_norm_eps
        run.note(hidden_BTH)
        first, last = (FeedForward(config, config.hidden_act, name=name) for name in ("ffn1", "ffn2"))
        hidden_BTH = hidden_BTH + 0.5 * first(norm("ffn1_layer_norm", eps)(hidden_BTH), run)
        attention = SelfAttention(config, config.position_embeddings_type, name="self_attn")
        normed_BTH = norm("self_attn_layer_norm", eps)(hidden_BTH)
        attended_BTH = attention(normed_BTH, attended_keys(valid_BT), run)
        hidden_BTH = hidden_BTH + dropout(attended_BTH, config.attention_dropout, run)
        hidden_BTH = hidden_BTH + ConvolutionModule(config, name="conv_module")(hidden_BTH, valid_BT, run)
        hidden_BTH = hidden_BTH + 0.5 * last(norm("ffn2_layer_norm", eps)(hidden_BTH), run)
        output_BTH: Array = norm("final_layer_norm", eps)(hidden_BTH)
        return output_BTH


class ConformerEncoder(nn.Module):
    """The Conformer layers."""

    config: Any

    @nn.compact
    def __call__(self, hidden_BTH: Array, valid_BT: Array, run: Pass) -> Array:
        """Return the last hidden state."""
        hidden_BTH = dropout(without_padding(hidden_BTH, valid_BT), self.config.hidden_dropout, run)
        make = functools.partial(ConformerLayer, self.config)
        output_BTH: Array = Numbered(make, self.config.num_hidden_layers, name="layers")(hidden_BTH, valid_BT, run)
        run.note(output_BTH)
        return output_BTH


class AdapterLayer(nn.Module):
    """Attention over fewer frames, with strided convolutions before it and in its residual."""

    config: Any
    index: int

    @nn.compact
    def __call__(self, x: tuple[Array, Array], run: Pass) -> tuple[Array, Array]:
        """Return about one frame per `adapter_stride` frames, and the numbers of frames."""
        config, eps, (hidden_BTH, num_frames_B) = self.config, self.config.layer_norm_eps, x
        valid_BT = is_before(num_frames_B, hidden_BTH.shape[1])
        counts: Any = num_frames_B
        counts = adapted_frames(counts, config)
        width, kernel, stride = hidden_BTH.shape[-1], config.adapter_kernel_size, config.adapter_stride
        padding = [(stride // 2, stride // 2)]

        def strided(norm_name: str, name: str) -> Array:
            normed_BTH = without_padding(norm(norm_name, eps)(hidden_BTH), valid_BT)
            return glu(nn.Conv(2 * width, (kernel,), (stride,), padding, name=name)(normed_BTH))

        residual_BPH = strided("residual_layer_norm", "residual_conv")
        hidden_BPH = strided("self_attn_layer_norm", "self_attn_conv")
        keys_B11P = attended_keys(is_before(counts, hidden_BPH.shape[1]))
        # Its weights are not an output of the encoder.
        attended_BPH = SelfAttention(config, None, name="self_attn")(hidden_BPH, keys_B11P, Pass(train=run.train))
        hidden_BPH = dropout(attended_BPH, config.conformer_conv_dropout, run) + residual_BPH
        feed_forward = FeedForward(config, config.adapter_act, name="ffn")
        return hidden_BPH + feed_forward(norm("ffn_layer_norm", eps)(hidden_BPH), run), counts


class Adapter(nn.Module):
    """Reduction of the encoder's frames for a decoder that attends to them."""

    config: Any

    @nn.compact
    def __call__(self, hidden_BTH: Array, num_frames_B: Array, run: Pass) -> tuple[Array, Array]:
        """Return fewer frames, and their numbers."""
        config = self.config
        if config.adapter_size != config.hidden_size:
            hidden_BTH = nn.Dense(config.adapter_size, name="proj")(hidden_BTH)
            hidden_BTH = norm("proj_layer_norm", config.layer_norm_eps)(hidden_BTH)
        make = functools.partial(AdapterLayer, config)
        layers = Numbered(make, config.num_adapter_layers, name="layers")
        adapted: tuple[Array, Array] = layers((hidden_BTH, num_frames_B), run)
        return adapted


class Wav2Vec2BertModule(nn.Module):
    """The encoder without a head; includes the adapter if there is one."""

    config: Any

    @nn.compact
    def __call__(self, inputs: Array, mask_BT: Array, run: Pass) -> Encoded:
        """Encode log-mel features (B, T, C); `mask_BT` is true for frames of the row, which come first."""
        config, num_frames_B = self.config, mask_BT.sum(-1)
        hidden_BTH, features_BTC = FeatureProjection(config, name="feature_projection")(inputs, run)
        valid_BT = is_before(num_frames_B, inputs.shape[1])
        hidden_BTH = ConformerEncoder(config, name="encoder")(hidden_BTH, valid_BT, run)
        if config.use_intermediate_ffn_before_adapter:
            hidden_BTH = hidden_BTH + 0.5 * FeedForward(config, "relu", name="intermediate_ffn")(hidden_BTH, run)
        num_labels: Any = num_frames_B + has_odd_mel(inputs, num_frames_B)
        if config.add_adapter:
            hidden_BTH, num_frames_B = Adapter(config, name="adapter")(hidden_BTH, num_frames_B, run)
            for _ in range(config.num_adapter_layers):
                num_labels = adapted_frames(num_labels, config)
        valid_BT, labelled_BT = (is_before(count_B, hidden_BTH.shape[1]) for count_B in (num_frames_B, num_labels))
        return Encoded(hidden_BTH, features_BTC, valid_BT, labelled_BT)


def has_odd_mel(features_BTC: Array, num_frames_B: Array) -> Array:
    """Return a mask (B,) of the rows that end in an odd log-mel frame, as in PyTorch."""
    _, num_frames, width = features_BTC.shape
    next_BC, last_BC = (
        jnp.take_along_axis(features_BTC, places_B.clip(0, num_frames - 1)[:, None, None], 1)[:, 0]
        for places_B in (num_frames_B, num_frames_B - 1)
    )
    padding_B1 = next_BC[:, -1:]
    is_half_B = (next_BC[:, width // 2 :] == padding_B1).all(-1)
    is_whole_B = (next_BC == padding_B1).all(-1) & ~(last_BC == padding_B1).all(-1)
    return (num_frames_B < num_frames) & is_half_B & ~is_whole_B


class FlaxWav2Vec2BertModel(FlaxEncoderModel):
    """The encoder without a head."""

    torch_class = Wav2Vec2BertModel
    encoder_module = Wav2Vec2BertModule


class FlaxWav2Vec2BertForCTC(FlaxEncoderForCTC):
    """The encoder with a linear head over the vocabulary; `pad_token_id` is the blank."""

    torch_class = Wav2Vec2BertForCTC
    encoder_module = Wav2Vec2BertModule
