"""wav2vec 2.0 (Baevski et al. 2020, arXiv:2006.11477) in Flax: the layers of transformer.py, and the adapter.

Legend: B batch, T frames, H hidden.
"""

import functools
from typing import Any

from flax import linen as nn
from jax import Array

from raysp.models.flax.encoders import FlaxEncoderForCTC, FlaxEncoderModel
from raysp.models.flax.layers import Numbered, is_before, norm, without_padding
from raysp.models.flax.transformer import TransformerModule
from raysp.models.flax.waveform import glu
from raysp.models.wav2vec2 import ADAPTER_PADDING, Wav2Vec2ForCTC, Wav2Vec2Model, adapter_output_frames


class Wav2Vec2AdapterLayer(nn.Module):
    """A strided convolution with a gate."""

    config: Any
    index: int

    @nn.compact
    def __call__(self, x: tuple[Array, Array]) -> tuple[Array, Array]:
        """Return about one frame per `adapter_stride` frames, and the numbers of frames."""
        config, (hidden_BTH, num_frames_B) = self.config, x
        hidden_BTH = without_padding(hidden_BTH, is_before(num_frames_B, hidden_BTH.shape[1]))
        padding, width = [(ADAPTER_PADDING, ADAPTER_PADDING)], 2 * hidden_BTH.shape[-1]
        conv = nn.Conv(width, (config.adapter_kernel_size,), (config.adapter_stride,), padding, name="conv")
        counts: Any = num_frames_B
        return glu(conv(hidden_BTH)), adapter_output_frames(counts, config)


class Wav2Vec2Adapter(nn.Module):
    """Projection to a text decoder's width, and strides to about the rate of text."""

    config: Any

    @nn.compact
    def __call__(self, hidden_BTH: Array, num_frames_B: Array) -> tuple[Array, Array]:
        """Return fewer frames, and their numbers."""
        config = self.config
        if config.output_hidden_size != config.hidden_size:
            hidden_BTH = nn.Dense(config.output_hidden_size, name="proj")(hidden_BTH)
            hidden_BTH = norm("proj_layer_norm")(hidden_BTH)
        make = functools.partial(Wav2Vec2AdapterLayer, config)
        layers = Numbered(make, config.num_adapter_layers, name="layers")
        adapted: tuple[Array, Array] = layers((hidden_BTH, num_frames_B))
        return adapted


class Wav2Vec2Module(TransformerModule):
    """The encoder without a head; includes the adapter if there is one."""

    def adapted(self, hidden_BTH: Array, num_frames_B: Array) -> tuple[Array, Array]:
        """Return the frames of the adapter, and their numbers."""
        if not self.config.add_adapter:
            return hidden_BTH, num_frames_B
        frames: tuple[Array, Array] = Wav2Vec2Adapter(self.config, name="adapter")(hidden_BTH, num_frames_B)
        return frames


class FlaxWav2Vec2Model(FlaxEncoderModel):
    """The encoder without a head."""

    torch_class = Wav2Vec2Model
    encoder_module = Wav2Vec2Module


class FlaxWav2Vec2ForCTC(FlaxEncoderForCTC):
    """The encoder with a linear head over the vocabulary; `pad_token_id` is the blank."""

    torch_class = Wav2Vec2ForCTC
    encoder_module = Wav2Vec2Module
