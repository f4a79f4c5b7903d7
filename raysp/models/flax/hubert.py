"""HuBERT (Hsu et al. 2021, arXiv:2106.07447) in Flax: the layers of transformer.py with two options.

Legend: B batch, T frames, H hidden.
"""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import Array, lax

from raysp.models.flax.encoders import FlaxEncoderForCTC, FlaxEncoderModel
from raysp.models.flax.layers import Pass, activation, without_padding
from raysp.models.flax.transformer import Encoder, FeatureProjection, TransformerModule
from raysp.models.flax.waveform import grouped_convolution
from raysp.models.hubert import HubertForCTC, HubertModel

BATCH_NORM_EPS = 1e-5  # PyTorch's default


class GroupedConv(nn.Module):
    """A grouped convolution over time."""

    kernel: int
    groups: int

    @nn.compact
    def __call__(self, x_BTC: Array) -> Array:
        """Convolve with `kernel // 2` zeros on each side."""
        width = x_BTC.shape[-1]
        shape = (self.kernel, width // self.groups, width)
        weight_KCO = self.param("kernel", nn.initializers.normal(), shape)
        bias_O: Array = self.param("bias", nn.initializers.zeros, (width,))
        return grouped_convolution(x_BTC, weight_KCO, self.groups) + bias_O


class StoredBatchNorm(nn.Module):
    """A batch norm with the statistics of the checkpoint, in training too."""

    @nn.compact
    def __call__(self, x_BTC: Array) -> Array:
        """Return the normalised frames."""
        width = x_BTC.shape[-1]
        scale_C: Array = self.param("scale", nn.initializers.ones, (width,))
        bias_C: Array = self.param("bias", nn.initializers.zeros, (width,))
        mean_C = self.variable("buffers", "running_mean", jnp.zeros, (width,)).value
        variance_C = self.variable("buffers", "running_var", jnp.ones, (width,)).value
        # Statistics of a batch would make a row depend on the others.
        return ((x_BTC - mean_C) * lax.rsqrt(variance_C + BATCH_NORM_EPS)).astype(x_BTC.dtype) * scale_C + bias_C


class HubertBatchNormConvEmbedding(nn.Module):
    """A positional convolution after a batch norm."""

    config: Any

    @nn.compact
    def __call__(self, hidden_BTH: Array, valid_BT: Array, run: Pass) -> Array:
        """Return the residual (B, T, H); frames that are not valid count as zero."""
        config = self.config
        x_BTH = without_padding(StoredBatchNorm(name="batch_norm")(hidden_BTH), valid_BT)
        conv = GroupedConv(config.num_conv_pos_embeddings, config.num_conv_pos_embedding_groups, name="conv")
        return activation(config.feat_extract_activation)(conv(x_BTH)[:, : hidden_BTH.shape[1]])


class HubertModule(TransformerModule):
    """The encoder without a head."""

    def projection(self) -> nn.Module:
        """Return the projection of features, whose norm is optional."""
        return FeatureProjection(self.config, self.config.feat_proj_layer_norm, name="feature_projection")

    def encoder(self) -> nn.Module:
        """Return the layers, whose positional convolution may follow a batch norm."""
        if self.config.conv_pos_batch_norm:
            return Encoder(self.config, HubertBatchNormConvEmbedding, name="encoder")
        return Encoder(self.config, name="encoder")


class FlaxHubertModel(FlaxEncoderModel):
    """The encoder without a head."""

    torch_class = HubertModel
    encoder_module = HubertModule


class FlaxHubertForCTC(FlaxEncoderForCTC):
    """The encoder with a linear head over the vocabulary; `pad_token_id` is the blank."""

    torch_class = HubertForCTC
    encoder_module = HubertModule
