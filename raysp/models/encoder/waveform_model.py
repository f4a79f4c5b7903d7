"""The base of models that read waveforms by waveform.py: lengths, and how weights are first drawn.

Legend: S samples, T frames.
"""

import math

import torch
from torch import nn

from raysp.errors import CheckpointError
from raysp.models.base.modeling import Count
from raysp.models.encoder.speech_model import EncoderConfig, SpeechModel
from raysp.models.encoder.waveform import FeatureEncoder, conv_output_frames
from raysp.models.kernels.weight_norm import WeightNorm, WeightNormConv1d


class WaveformConfig(EncoderConfig):
    """The fields that front end and encoder share; an architecture's configuration has them with its defaults."""

    num_attention_heads: int
    initializer_range: float
    conv_dim: tuple[int, ...]
    conv_stride: tuple[int, ...]
    conv_kernel: tuple[int, ...]
    num_conv_pos_embeddings: int
    num_conv_pos_embedding_groups: int

    @property
    def num_feat_extract_layers(self) -> int:
        """Number of convolutions of the front end."""
        return len(self.conv_dim)

    @property
    def inputs_to_logits_ratio(self) -> int:
        """Samples from one frame to the next."""
        return math.prod(self.conv_stride)

    def validate(self) -> None:
        """Check what must agree before a model can be built."""
        counts = {name: len(getattr(self, name)) for name in ("conv_dim", "conv_stride", "conv_kernel")}
        if len(set(counts.values())) != 1 or not self.conv_dim:
            raise CheckpointError(f"lengths are {counts}, expected one length for all three: correct config.json")
        for name, divisor in (
            ("num_attention_heads", self.num_attention_heads),
            ("num_conv_pos_embedding_groups", self.num_conv_pos_embedding_groups),
        ):
            if divisor < 1 or self.hidden_size % divisor:
                raise CheckpointError(f"{name} is {divisor}, expected a divisor of hidden_size {self.hidden_size}")
        if min(*self.conv_dim, *self.conv_stride, *self.conv_kernel, self.num_conv_pos_embeddings) < 1:
            raise CheckpointError("a convolution's width, stride or kernel is below 1, expected positive numbers")


class WaveformModel(SpeechModel):
    """A model with a convolutional front end over samples."""

    config: WaveformConfig

    @property
    def frame_stride(self) -> int:
        """Samples from one frame to the next."""
        return self.config.inputs_to_logits_ratio

    def num_frames(self, num_samples: Count) -> Count:
        """Return the frames that inputs of these numbers of samples give, at least 0."""
        frames = self._get_feat_extract_output_lengths(num_samples)
        return frames * (frames > 0)

    def _get_feat_extract_output_lengths(self, input_lengths: Count) -> Count:
        return conv_output_frames(input_lengths, self.config.conv_kernel, self.config.conv_stride)

    def freeze_feature_encoder(self) -> None:
        """Take the convolutional front end out of training."""
        for module in self.modules():
            if isinstance(module, FeatureEncoder):
                module.requires_grad_(False)

    def _init_module(self, module: nn.Module) -> None:
        match module:
            case WeightNormConv1d(kernel=kernel, groups=groups, bias=bias):
                weight = torch.empty_like(module.norm.original1)
                nn.init.normal_(weight, std=2 * math.sqrt(1 / (kernel * weight.shape[1] * groups)))
                module.parametrizations.weight = WeightNorm(weight)
                nn.init.zeros_(bias)
            case nn.Linear():
                nn.init.normal_(module.weight, std=self.config.initializer_range)
                nn.init.zeros_(module.bias)
            case nn.LayerNorm() | nn.GroupNorm():
                nn.init.ones_(module.weight)
                nn.init.zeros_(module.bias)
