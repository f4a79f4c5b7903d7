"""The Transformer over waveforms shared by wav2vec 2.0 (Baevski et al. 2020), HuBERT and UniSpeech.

In this order: fields of configurations, feature projection, positional convolution, attention, layers, encoder. The
convolutional front end is in waveform.py, the positional convolution's weight in base/folded.py, models are in
speech_model.py and encoder_heads.py. Names of modules and weights follow published checkpoints.

Legend: B batch, T frames, N frames of all rows, C channels of the front end, H hidden, A heads, D head, I inner.
"""

import math
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import accumulate, islice
from operator import truediv
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from raysp.errors import CheckpointError
from raysp.models.base.configuration import Config
from raysp.models.base.folded import WeightNormConv1d
from raysp.models.base.kernels import activation, attention_with_dropout, dense, dropped
from raysp.models.base.row_layout import Layout
from raysp.models.encoder.heads import States
from raysp.models.encoder.languages import AttnAdapterLayer
from raysp.models.encoder.relative_attention import BiasOf, attend, attention_weights

Convolutions = tuple[tuple[int, ...], tuple[int, ...]]
"""Kernels and strides, from the first layer to the last."""


class EncoderConfig(Config):
    """Fields of every encoder; fields without a default here have one in the architecture's configuration."""

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

    @property
    def adapter_padding(self) -> int:
        """Zeros on each side of the frames of a convolution of the adapter."""
        return 1

    @property
    def adapter_size(self) -> int:
        """Width of the adapter's output."""
        return self.output_hidden_size or self.hidden_size

    @property
    def last_size(self) -> int:
        """Width of `last_hidden_state`."""
        return self.adapter_size if self.add_adapter else self.hidden_size

    def validate(self) -> None:
        """Raise CheckpointError for fields that contradict each other."""
        self._check_one_length("tdnn_dim", "tdnn_kernel", "tdnn_dilation")
        self.output_hidden_size = self.adapter_size


class TransformerConfig(WaveformConfig):
    """Fields and defaults shared by the three architectures."""

    hidden_act: str = "gelu"
    layerdrop: float = 0.1
    layer_norm_eps: float = 1e-5
    conv_dim: tuple[int, ...] = (512, 512, 512, 512, 512, 512, 512)
    conv_stride: tuple[int, ...] = (5, 2, 2, 2, 2, 2, 2)
    conv_kernel: tuple[int, ...] = (10, 3, 3, 3, 3, 2, 2)
    do_stable_layer_norm: bool = False
    adapter_attn_dim: int | None = None
    ctc_loss_reduction: str = "sum"


class QuantizerConfig(TransformerConfig):
    """Fields and defaults of contrastive pre-training (Baevski et al. 2020, section 3)."""

    feat_quantizer_dropout: float = 0.0
    num_codevectors_per_group: int = 320
    num_codevector_groups: int = 2
    contrastive_logits_temperature: float = 0.1
    num_negatives: int = 100
    codevector_dim: int = 256
    proj_codevector_dim: int = 256
    diversity_loss_weight: float = 0.1


class FeatureProjection(nn.Module):
    """Normalisation of the front end's features and projection to the hidden width."""

    layer_norm: nn.LayerNorm | None

    def __init__(self, config: EncoderConfig, in_features: int) -> None:
        super().__init__()
        self.config = config
        self.layer_norm = nn.LayerNorm(in_features, eps=config.layer_norm_eps)
        self.projection = nn.Linear(in_features, config.hidden_size)

    def forward(self, features_BTC: Tensor) -> tuple[Tensor, Tensor]:
        """Return the projected and the normalised features."""
        if self.layer_norm is not None:
            features_BTC = self.layer_norm(features_BTC)
        hidden_BTH = dropped(dense(self.projection, features_BTC), self.config.feat_proj_dropout, self.training)
        return hidden_BTH, features_BTC


class PositionalConvEmbedding(nn.Module):
    """Positions of frames, or of every `stride` of them, by a wide convolution over their neighbours."""

    def __init__(self, config: WaveformConfig, stride: int = 1) -> None:
        super().__init__()
        kernel, groups = config.num_conv_pos_embeddings, config.num_conv_pos_embedding_groups
        self.conv = WeightNormConv1d(config.hidden_size, kernel, groups, stride)
        self.act = activation(config.feat_extract_activation)

    def forward(self, hidden_BTH: Tensor, kept_BT: Tensor | None) -> Tensor:
        """Return the residual (B, T, H); frames outside `kept_BT` are zero already."""
        num_frames = hidden_BTH.shape[1] // self.conv.stride  # an even kernel yields one extra
        x_BHT = self.conv(hidden_BTH.transpose(1, 2))[:, :, :num_frames]
        return self.act(x_BHT).transpose(1, 2)


def attended(
    q_BATD: Tensor,
    k_BATD: Tensor,
    v_BATD: Tensor,
    layout: Layout,
    bias_of: BiasOf | None = None,
    *,
    scale: float,
    dropout: float = 0.0,
    with_weights: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Return the attended frames (B, T, H), and weights_BATT if requested, which packed rows do not support."""
    if with_weights:
        bias = None if bias_of is None else bias_of(*layout.queries_and_keys[0])
        weights_BATT = attention_weights(q_BATD, k_BATD, bias, layout.keys, scale=scale)
        weights_BATT = dropped(weights_BATT, dropout)
        return (weights_BATT @ v_BATD).transpose(1, 2).flatten(2), weights_BATT
    mixed = []
    for queries, keys in layout.queries_and_keys:
        bias = bias_of(queries, keys) if bias_of is not None and queries.start < queries.stop else None
        q, k, v = q_BATD[:, :, queries], k_BATD[:, :, keys], v_BATD[:, :, keys]
        if bias is None:
            mixed_BATD = attention_with_dropout(q, k, v, layout.keys, dropout, scale)
        else:
            mixed_BATD = attend(q, k, v, bias, layout.keys, scale=scale, dropout=dropout)
        mixed.append(mixed_BATD.transpose(1, 2).flatten(2))
    return layout.joined(mixed), None


class Attention(nn.Module):
    """Multi-head attention of frames over frames."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.out_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, hidden_BTH: Tensor, layout: Layout, with_weights: bool) -> tuple[Tensor, Tensor | None]:
        """Return the attended frames, and weights_BATT if requested."""
        heads = self.config.num_attention_heads
        shape = (*hidden_BTH.shape[:2], heads, hidden_BTH.shape[2] // heads)
        q_BATD, k_BATD, v_BATD = (
            dense(projection, hidden_BTH).view(shape).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        dropout = self.config.attention_dropout if self.training else 0.0
        mixed_BTH, weights_BATT = attended(
            q_BATD, k_BATD, v_BATD, layout, scale=shape[-1] ** -0.5, dropout=dropout, with_weights=with_weights
        )
        return dense(self.out_proj, mixed_BTH), weights_BATT


class FeedForward(nn.Module):
    """Two dense layers with an activation between them."""

    def __init__(self, config: EncoderConfig, hidden_size: int, act: str) -> None:
        super().__init__()
        self.config, self.act = config, act
        self.intermediate_dense = nn.Linear(hidden_size, config.intermediate_size)
        activation(act)  # raises if unknown
        self.output_dense = nn.Linear(config.intermediate_size, hidden_size)

    def forward(self, hidden_BTH: Tensor) -> Tensor:
        """Return (B, T, H), each frame on its own."""
        inner_BTI = dense(self.intermediate_dense, hidden_BTH, self.act)
        inner_BTI = dropped(inner_BTI, self.config.activation_dropout, self.training)
        return dropped(dense(self.output_dense, inner_BTI), self.config.hidden_dropout, self.training)


class EncoderLayer(nn.Module):
    """Attention and feed-forward, normalised before with `do_stable_layer_norm`, else after."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.attention = Attention(config)
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.feed_forward = FeedForward(config, config.hidden_size, config.hidden_act)
        self.final_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.adapter_layer: AttnAdapterLayer | None = None
        if config.do_stable_layer_norm and config.adapter_attn_dim is not None:
            self.adapter_layer = AttnAdapterLayer(config.hidden_size, config.adapter_attn_dim)

    def forward(self, hidden_BTH: Tensor, layout: Layout, with_weights: bool) -> tuple[Tensor, Tensor | None]:
        """Return the layer's output, and attention weights if requested."""
        if self.config.do_stable_layer_norm:
            return self._forward_stable(hidden_BTH, layout, with_weights)
        attended_BTH, weights_BATT = self.attention(hidden_BTH, layout, with_weights)
        attended_BTH = dropped(attended_BTH, self.config.hidden_dropout, self.training)
        hidden_BTH = self.layer_norm(hidden_BTH + attended_BTH)
        return self.final_layer_norm(hidden_BTH + self.feed_forward(hidden_BTH)), weights_BATT

    def _forward_stable(self, hidden_BTH: Tensor, layout: Layout, with_weights: bool) -> tuple[Tensor, Tensor | None]:
        attended_BTH, weights_BATT = self.attention(self.layer_norm(hidden_BTH), layout, with_weights)
        hidden_BTH = hidden_BTH + dropped(attended_BTH, self.config.hidden_dropout, self.training)
        hidden_BTH = hidden_BTH + self.feed_forward(self.final_layer_norm(hidden_BTH))
        if self.adapter_layer is not None:
            hidden_BTH = hidden_BTH + self.adapter_layer(hidden_BTH)
        return hidden_BTH, weights_BATT


class Encoder(nn.Module):
    """The positional convolution and the layers."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.gradient_checkpointing = False
        self.pos_conv_embed: nn.Module = PositionalConvEmbedding(config)
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.num_hidden_layers))

    @property
    def last_norm(self) -> nn.LayerNorm | None:
        """The norm, if it follows the last layer and not the positional convolution."""
        return self.layer_norm if self.config.do_stable_layer_norm else None

    def forward(
        self, hidden_BTH: Tensor, layout: Layout, states: Sequence[States], with_weights: bool
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return the last hidden state, whose padding is meaningless, and attention weights.

        Args:
            hidden_BTH: Projected features.
            layout: Layout of the frames.
            states: Receive each layer's input and the last output; a layer dropped in training returns its input.
            with_weights: Return attention weights.
        """
        hidden_BTH = layout.zeroed(hidden_BTH)
        hidden_BTH = hidden_BTH + self.pos_conv_embed(hidden_BTH, layout.mask)
        if not self.config.do_stable_layer_norm:
            hidden_BTH = self.layer_norm(hidden_BTH)
        hidden_BTH = dropped(hidden_BTH, self.config.hidden_dropout, self.training)
        if not (with_weights or self.training):
            layout = layout.packed(hidden_BTH)
        hidden_BTH, weights = run_layers(
            self, self.layers, layout.pack(hidden_BTH), layout, with_weights, states=states
        )
        if self.config.do_stable_layer_norm:
            hidden_BTH = self.layer_norm(hidden_BTH)
        return layout.unpack(hidden_BTH), weights


class LayerStack(Protocol):
    """A module of layers."""

    training: bool
    gradient_checkpointing: bool
    config: Any


def run_layers(
    encoder: LayerStack,
    layers: Iterable[nn.Module],
    hidden_BTH: Tensor,
    layout: Layout,
    *arguments: Any,  # noqa: ANN401
    states: Sequence[States],
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Return the output of the last layer and attention weights.

    Args:
        encoder: Module of the layers.
        layers: Functions of frames, layout and arguments, which return frames, and weights or None.
        hidden_BTH: Frames, as the layout has them.
        layout: Layout of the frames.
        arguments: Further arguments of the layers.
        states: Receive each layer's input and the last output, side by side.
    """
    weights, layerdrop = [], getattr(encoder.config, "layerdrop", 0.0)
    # Only the input of a layer is kept for gradients then; the rest is computed again.
    recomputes = encoder.gradient_checkpointing and encoder.training and torch.is_grad_enabled()
    for layer in layers:
        if states:
            _receive(states, layout.unpack(hidden_BTH))
        if encoder.training and layerdrop > 0.0 and torch.rand([]) < layerdrop:
            continue
        run = partial(checkpoint, layer, use_reentrant=False) if recomputes else layer
        hidden_BTH, weights_BATT = run(hidden_BTH, layout, *arguments)
        if weights_BATT is not None:
            weights.append(weights_BATT)
    if states:
        _receive(states, layout.unpack(hidden_BTH))
    return hidden_BTH, tuple(weights)


def _receive(states: Sequence[States], hidden_BTH: Tensor) -> None:
    for receiver in states:
        receiver.append(hidden_BTH)
