"""The convolutional front end of wav2vec 2.0, and its positional convolution.

Group norm over time counts the frames of a row alone, so that padding does not change it.

Legend: B batch, S samples, T frames, C channels, O outputs, K taps of a kernel.
"""

from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import Array, lax

from raysp.models.encoder.transformer import TransformerConfig
from raysp.models.encoder.waveform import NORM_EPS, conv_output_frames
from raysp.models.flax.layers import Pass, activation, is_before, norm, numbered, without_padding


def num_frames_of(num_samples: Any, kernels: tuple[int, ...], strides: tuple[int, ...]) -> Any:  # noqa: ANN401 - Array or int
    """Return the number of frames after convolutions without padding, at least 0."""
    frames: Any = conv_output_frames(num_samples, kernels, strides)
    return frames * (frames > 0)


class NormOverTime(nn.Module):
    """Norm of each channel over the frames of a row."""

    @nn.compact
    def __call__(self, x_BTC: Array, num_frames_B: Array) -> Array:
        """Return the normalised frames; statistics are in float32."""
        width = x_BTC.shape[-1]
        scale_C = self.param("scale", nn.initializers.ones, (width,))
        bias_C = self.param("bias", nn.initializers.zeros, (width,))
        valid_BT = is_before(num_frames_B, x_BTC.shape[1])
        count_B11 = jnp.maximum(num_frames_B, 1)[:, None, None]
        wide_BTC = x_BTC.astype(jnp.float32)
        mean_B1C = without_padding(wide_BTC, valid_BT).sum(1, keepdims=True) / count_B11
        centred_BTC = without_padding(wide_BTC - mean_B1C, valid_BT)
        variance_B1C = jnp.square(centred_BTC).sum(1, keepdims=True) / count_B11
        return (centred_BTC * lax.rsqrt(variance_B1C + NORM_EPS)).astype(x_BTC.dtype) * scale_C + bias_C


def conv_layer(config: TransformerConfig, index: int, x_BTC: Array, num_samples_B: Array) -> Array:
    """Return frames after a strided convolution, a norm if the layer has one, and the activation."""
    end, kernel, stride = index + 1, config.conv_kernel[index], config.conv_stride[index]
    conv = nn.Conv(config.conv_dim[index], (kernel,), (stride,), "VALID", use_bias=config.conv_bias, name="conv")
    x_BTC = conv(x_BTC)
    if config.feat_extract_norm == "layer":
        x_BTC = norm("layer_norm", x_BTC, NORM_EPS)
    elif index == 0:
        count_B = num_frames_of(num_samples_B, config.conv_kernel[:end], config.conv_stride[:end])
        x_BTC = NormOverTime(name="layer_norm")(x_BTC, count_B)
    return activation(config.feat_extract_activation)(x_BTC)


def feature_extractor(config: TransformerConfig, waves_BS: Array, num_samples_B: Array, run: Pass) -> Array:
    """Return features_BTC of waveforms."""
    layer, count = partial(conv_layer, config), len(config.conv_dim)
    features_BTC = numbered("conv_layers", count, layer, waves_BS[:, :, None], num_samples_B)
    return lax.stop_gradient(features_BTC) if run.freezes_features else features_BTC


class WeightNormConv(nn.Module):
    """A grouped convolution over time whose weight is normalised over all axes but taps."""

    kernel: int
    groups: int

    @nn.compact
    def __call__(self, x_BTC: Array) -> Array:
        """Convolve with `kernel // 2` zeros on each side; an even kernel yields a frame more."""
        width, half = x_BTC.shape[-1], self.kernel // 2
        shape = (width, width // self.groups, self.kernel)
        direction_OCK = self.param("weight_v", nn.initializers.normal(), shape)
        length_11K = self.param("weight_g", nn.initializers.ones, (1, 1, self.kernel))
        bias_O = self.param("bias", nn.initializers.zeros, (width,))
        wide_OCK = direction_OCK.astype(jnp.float32)
        # In float32: a sum of thousands of squares in half precision would change every tap.
        size_11K = jnp.sqrt(jnp.square(wide_OCK).sum((0, 1), keepdims=True))
        weight_OCK = (wide_OCK * (length_11K / size_11K)).astype(x_BTC.dtype)
        convolved_BTO = lax.conv_general_dilated(
            x_BTC,
            weight_OCK.transpose(2, 1, 0),
            (1,),
            [(half, half)],
            dimension_numbers=("NWC", "WIO", "NWC"),
            feature_group_count=self.groups,
        )
        return convolved_BTO + bias_O


def positions_of(config: TransformerConfig, hidden_BTH: Array) -> Array:
    """Return the positional embedding of each frame, by a convolution of its neighbours."""
    conv = WeightNormConv(config.num_conv_pos_embeddings, config.num_conv_pos_embedding_groups, name="conv")
    return activation(config.feat_extract_activation)(conv(hidden_BTH)[:, : hidden_BTH.shape[1]])
