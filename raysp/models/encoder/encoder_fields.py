"""Fields of configurations that the shared parts of encoders read: heads, front end, x-vectors."""

import math
from itertools import accumulate, islice
from operator import truediv

from raysp.errors import CheckpointError
from raysp.models.files.configuration import Config

Convolutions = tuple[tuple[int, ...], tuple[int, ...]]
"""Kernels and strides, from the first layer to the last."""


class EncoderConfig(Config):
    """Fields of every encoder; those without a default here have one in the architecture's configuration."""

    vocab_size: int | None
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    hidden_act: str
    hidden_dropout: float
    activation_dropout: float
    attention_dropout: float
    feat_proj_dropout: float = 0.0
    final_dropout: float = 0.1
    initializer_range: float = 0.02
    layer_norm_eps: float
    apply_spec_augment: bool = True
    mask_time_prob: float = 0.05
    mask_time_length: int = 10
    mask_time_min_masks: int = 2
    mask_feature_prob: float = 0.0
    mask_feature_length: int = 10
    mask_feature_min_masks: int = 0
    ctc_loss_reduction: str
    ctc_zero_infinity: bool = False
    use_weighted_layer_sum: bool = False
    classifier_proj_size: int
    pad_token_id: int | None = 0
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2

    @property
    def convolutions(self) -> Convolutions:
        """Kernels and strides of the front end; empty where the encoder reads features."""
        return (), ()

    @property
    def inputs_to_logits_ratio(self) -> int:
        """Inputs from one frame to the next."""
        raise NotImplementedError

    def front_end_values(self, sample_rate: float) -> float:
        """Return the values a second at the widest place of the front end: input, inner and output tensors."""
        return 0.0

    def _check_one_length(self, *names: str) -> None:
        """Raise CheckpointError unless lists with a value for each layer have one length, of at least 1."""
        counts = {name: len(getattr(self, name)) for name in names}
        if len(set(counts.values())) != 1 or 0 in counts.values():
            raise CheckpointError(f"lengths are {counts}, expected one length for all three: correct config.json")


class WaveformConfig(EncoderConfig):
    """Fields and defaults of encoders with a convolutional front end."""

    vocab_size: int | None = 32
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_dropout: float = 0.1
    activation_dropout: float = 0.1
    attention_dropout: float = 0.1
    feat_extract_norm: str = "group"
    feat_extract_activation: str = "gelu"
    conv_dim: tuple[int, ...]
    conv_stride: tuple[int, ...]
    conv_kernel: tuple[int, ...]
    conv_bias: bool = False
    num_conv_pos_embeddings: int = 128
    num_conv_pos_embedding_groups: int = 16
    classifier_proj_size: int = 256

    @property
    def convolutions(self) -> Convolutions:
        """Kernels and strides of the front end."""
        return self.conv_kernel, self.conv_stride

    def front_end_values(self, sample_rate: float) -> float:
        """Return the values a second at the widest convolution: input, inner and output tensors."""
        rates = accumulate(self.conv_stride, truediv, initial=sample_rate)
        return max(3 * rate * width for rate, width in zip(islice(rates, 1, None), self.conv_dim, strict=True))

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
        super().validate()
        self._check_one_length("conv_dim", "conv_stride", "conv_kernel")
        for name, divisor in (
            ("num_attention_heads", self.num_attention_heads),
            ("num_conv_pos_embedding_groups", self.num_conv_pos_embedding_groups),
        ):
            if divisor < 1 or self.hidden_size % divisor:
                raise CheckpointError(f"{name} is {divisor}, expected a divisor of hidden_size {self.hidden_size}")
        if min(*self.conv_dim, *self.conv_stride, *self.conv_kernel, self.num_conv_pos_embeddings) < 1:
            raise CheckpointError("a convolution's width, stride or kernel is below 1, expected positive numbers")


class XVectorConfig(EncoderConfig):
    """Fields and defaults of encoders with a speaker head and an adapter."""

    tdnn_dim: tuple[int, ...] = (512, 512, 512, 512, 1500)
    tdnn_kernel: tuple[int, ...] = (5, 3, 3, 1, 1)
    tdnn_dilation: tuple[int, ...] = (1, 2, 3, 1, 1)
    xvector_output_dim: int = 512
    add_adapter: bool = False
    adapter_kernel_size: int = 3
    adapter_stride: int = 2
    num_adapter_layers: int
    output_hidden_size: int | None = None

    def validate(self) -> None:
        """Raise CheckpointError for fields that contradict each other."""
        self._check_one_length("tdnn_dim", "tdnn_kernel", "tdnn_dilation")
