"""Fields of configurations that the shared parts of encoders read: heads, front end, x-vectors."""

import math

from raysp.errors import CheckpointError
from raysp.models.files.configuration import Config

Convolutions = tuple[tuple[int, ...], tuple[int, ...]]
"""Kernels and strides, from the first layer to the last."""


class EncoderConfig(Config):
    """Fields that heads read; an architecture's configuration sets their defaults."""

    vocab_size: int | None
    hidden_size: int
    num_hidden_layers: int
    initializer_range: float
    final_dropout: float
    apply_spec_augment: bool
    mask_time_prob: float
    mask_time_length: int
    mask_time_min_masks: int
    mask_feature_prob: float
    mask_feature_length: int
    mask_feature_min_masks: int
    ctc_loss_reduction: str
    ctc_zero_infinity: bool
    use_weighted_layer_sum: bool
    classifier_proj_size: int
    pad_token_id: int | None

    @property
    def convolutions(self) -> Convolutions:
        """Kernels and strides of the front end; empty where the encoder reads features."""
        return (), ()

    @property
    def inputs_to_logits_ratio(self) -> int:
        """Inputs from one frame to the next."""
        raise NotImplementedError


class WaveformConfig(EncoderConfig):
    """Fields of encoders with a convolutional front end; an architecture's configuration sets their defaults."""

    num_attention_heads: int
    conv_dim: tuple[int, ...]
    conv_stride: tuple[int, ...]
    conv_kernel: tuple[int, ...]
    num_conv_pos_embeddings: int
    num_conv_pos_embedding_groups: int

    @property
    def convolutions(self) -> Convolutions:
        """Kernels and strides of the front end."""
        return self.conv_kernel, self.conv_stride

    @property
    def num_feat_extract_layers(self) -> int:
        """Number of convolutions of the front end."""
        return len(self.conv_dim)

    @property
    def inputs_to_logits_ratio(self) -> int:
        """Samples from one frame to the next."""
        return math.prod(self.conv_stride)

    def validate(self) -> None:
        """Raise CheckpointError for fields that contradict each other."""
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


class XVectorConfig(EncoderConfig):
    """Fields that a speaker head reads in addition; an architecture's configuration sets their defaults."""

    tdnn_dim: tuple[int, ...]
    tdnn_kernel: tuple[int, ...]
    tdnn_dilation: tuple[int, ...]
    xvector_output_dim: int
    add_adapter: bool
