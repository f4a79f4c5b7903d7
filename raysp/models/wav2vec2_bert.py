"""Wav2Vec2-BERT (Seamless Communication 2023, arXiv:2312.05187, section 3.2): a Conformer over pairs of log-mel frames.

Read from top to bottom: configuration, positions, feed-forward, convolution, attention, Conformer layer (Gulati et al.
2020, arXiv:2005.08100), encoder, adapter, models. Features come from log_mels.py, biases by distance from
relative_attention.py, heads from encoder_heads.py. Names of modules and weights are those of published checkpoints.

Legend: B batch, T frames (pairs of log-mel frames), P frames behind the adapter, C width of features, H hidden,
A attention heads, D head, W distances of T frames (2T - 1), V vocabulary, L labels of a row, N classes.
"""

import itertools
import math
from collections.abc import Iterator
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from raysp.errors import CheckpointError
from raysp.models.base.modeling import Count, asked
from raysp.models.base.outputs import (
    CausalLMOutput,
    ModelOutput,
    SequenceClassifierOutput,
    TokenClassifierOutput,
    Wav2Vec2BaseModelOutput,
    XVectorOutput,
)
from raysp.models.encoder.augmentation import augmented
from raysp.models.encoder.encoder_heads import (
    ForAudioFrameClassification,
    ForCTC,
    ForSequenceClassification,
    ForXVector,
    XVectorConfig,
)
from raysp.models.encoder.heads import KeptStates, States
from raysp.models.encoder.relative_attention import (
    Bias,
    attend,
    attention_weights,
    clipped_distances,
    gathered,
    skewed,
)
from raysp.models.encoder.speech_model import SpeechModel
from raysp.models.features.log_mels import HOP_SAMPLES, MELS_PER_FRAME, num_mels, samples_of_mels
from raysp.models.files.configuration import Config
from raysp.models.kernels.activations import activation
from raysp.models.kernels.dense import dense, linear
from raysp.models.kernels.packing import Packing, attended_keys, can_pack

POSITIONS = ("relative_key", "relative", "rotary", None)


class Wav2Vec2BertConfig(XVectorConfig):
    """Fields and defaults of `Wav2Vec2BertConfig` in transformers."""

    model_type: ClassVar[str] = "wav2vec2-bert"

    vocab_size: int | None = None
    hidden_size: int = 1024
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    intermediate_size: int = 4096
    feature_projection_input_dim: int = 160
    hidden_act: str = "swish"
    hidden_dropout: float = 0.0
    activation_dropout: float = 0.0
    attention_dropout: float = 0.0
    feat_proj_dropout: float = 0.0
    final_dropout: float = 0.1
    layerdrop: float = 0.1
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-5
    apply_spec_augment: bool = True
    mask_time_prob: float = 0.05
    mask_time_length: int = 10
    mask_time_min_masks: int = 2
    mask_feature_prob: float = 0.0
    mask_feature_length: int = 10
    mask_feature_min_masks: int = 0
    ctc_loss_reduction: str = "sum"
    ctc_zero_infinity: bool = False
    use_weighted_layer_sum: bool = False
    classifier_proj_size: int = 768
    tdnn_dim: tuple[int, ...] = (512, 512, 512, 512, 1500)
    tdnn_kernel: tuple[int, ...] = (5, 3, 3, 1, 1)
    tdnn_dilation: tuple[int, ...] = (1, 2, 3, 1, 1)
    xvector_output_dim: int = 512
    pad_token_id: int | None = 0
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2
    add_adapter: bool = False
    adapter_kernel_size: int = 3
    adapter_stride: int = 2
    num_adapter_layers: int = 1
    adapter_act: str = "relu"
    use_intermediate_ffn_before_adapter: bool = False
    output_hidden_size: int | None = None
    position_embeddings_type: str | None = "relative_key"
    rotary_embedding_base: int = 10000
    max_source_positions: int = 5000
    left_max_position_embeddings: int = 64
    right_max_position_embeddings: int = 8
    conv_depthwise_kernel_size: int = 31
    conformer_conv_dropout: float = 0.1

    @property
    def inputs_to_logits_ratio(self) -> int:
        """Twice the features of a frame, as the original has it: 320 is also the samples from one frame to the next."""
        ratio = self.feature_projection_input_dim * 2
        return ratio * self.adapter_stride**self.num_adapter_layers if self.add_adapter else ratio

    @property
    def adapter_size(self) -> int:
        """Width of what the adapter gives."""
        return self.output_hidden_size or self.hidden_size

    @property
    def last_size(self) -> int:
        """Width of `last_hidden_state`."""
        return self.adapter_size if self.add_adapter else self.hidden_size

    def validate(self) -> None:
        """Check what must agree before a model can be built."""
        self.output_hidden_size = self.adapter_size
        if self.position_embeddings_type not in POSITIONS:
            raise CheckpointError(
                f"position_embeddings_type is {self.position_embeddings_type!r}, expected one of {POSITIONS}"
            )
        sizes = [self.hidden_size, self.adapter_size if self.add_adapter else self.hidden_size]
        if self.num_attention_heads < 1 or any(size % self.num_attention_heads for size in sizes):
            raise CheckpointError(f"num_attention_heads is {self.num_attention_heads}, expected a divisor of {sizes}")
        if self.conv_depthwise_kernel_size < 1 or self.conv_depthwise_kernel_size % 2 == 0:
            raise CheckpointError(
                f"conv_depthwise_kernel_size is {self.conv_depthwise_kernel_size}, expected an odd number"
            )
        if self.use_intermediate_ffn_before_adapter and not self.add_adapter:
            raise CheckpointError("use_intermediate_ffn_before_adapter is True without add_adapter: set both or none")
        if self.add_adapter and min(self.adapter_kernel_size, self.adapter_stride, self.num_adapter_layers) < 1:
            raise CheckpointError("the adapter's kernel, stride or number of layers is below 1")
        if len({len(self.tdnn_dim), len(self.tdnn_kernel), len(self.tdnn_dilation)}) != 1:
            raise CheckpointError("tdnn_dim, tdnn_kernel and tdnn_dilation differ in length, expected one length")


def sinusoids(num_frames: int, hidden_size: int, like: Tensor) -> Tensor:
    """Return sines and cosines_WH of the distances `i - j` from `T - 1` down to `1 - T` (Dai et al. 2019)."""
    distance_W1 = torch.arange(num_frames - 1, -num_frames, -1).float()[:, None]
    rates = torch.exp(torch.arange(0, hidden_size, 2).float() * -(math.log(10000.0) / hidden_size))
    waves_WH = torch.empty(distance_W1.shape[0], hidden_size)
    waves_WH[:, 0::2] = torch.sin(distance_W1 * rates)
    waves_WH[:, 1::2] = torch.cos(distance_W1 * rates)
    return waves_WH.to(like)


def rotations(num_frames: int, head_size: int, base: int, like: Tensor) -> Tensor:
    """Return cosine and sine (2, T, 1, D) that turn each frame by its place (Su et al. 2021, arXiv:2104.09864)."""
    rates = 1.0 / (base ** (torch.arange(0, head_size, 2).float() / head_size))
    angles_TD = (torch.arange(num_frames).float()[:, None] * rates).repeat(1, 2)
    return torch.stack([angles_TD.cos(), angles_TD.sin()])[:, :, None].to(like)


def rotated(x_BTH: Tensor, turns_2T1D: Tensor) -> Tensor:
    """Turn each head of each frame; the halves of a head are the two coordinates."""
    x_BTAD = x_BTH.reshape(*x_BTH.shape[:2], -1, turns_2T1D.shape[-1])
    first, second = x_BTAD.chunk(2, dim=-1)
    turned_BTAD = x_BTAD * turns_2T1D[0] + torch.cat([-second, first], dim=-1) * turns_2T1D[1]
    return turned_BTAD.flatten(2)


class Wav2Vec2BertFeatureProjection(nn.Module):
    """Normalise features and bring them to the hidden width."""

    def __init__(self, config: Wav2Vec2BertConfig) -> None:
        super().__init__()
        self.config = config
        self.layer_norm = nn.LayerNorm(config.feature_projection_input_dim, eps=config.layer_norm_eps)
        self.projection = nn.Linear(config.feature_projection_input_dim, config.hidden_size)

    def forward(self, features_BTC: Tensor) -> tuple[Tensor, Tensor]:
        """Return the projected and the normalised features."""
        features_BTC = self.layer_norm(features_BTC)
        hidden_BTH = F.dropout(dense(self.projection, features_BTC), self.config.feat_proj_dropout, self.training)
        return hidden_BTH, features_BTC


class Wav2Vec2BertFeedForward(nn.Module):
    """Two dense layers with an activation between them."""

    def __init__(self, config: Wav2Vec2BertConfig, act: str, hidden_size: int) -> None:
        super().__init__()
        self.config = config
        self.intermediate_dense = nn.Linear(hidden_size, config.intermediate_size)
        activation(act)  # unknown ones are refused
        self.act = act
        self.output_dense = nn.Linear(config.intermediate_size, hidden_size)

    def forward(self, hidden_BTH: Tensor) -> Tensor:
        """Apply to each frame by itself."""
        inner_BTI = dense(self.intermediate_dense, hidden_BTH, self.act)
        inner_BTI = F.dropout(inner_BTI, self.config.activation_dropout, self.training)
        return F.dropout(dense(self.output_dense, inner_BTI), self.config.hidden_dropout, self.training)


class Wav2Vec2BertConvolutionModule(nn.Module):
    """Mix each channel over the frames before; causal, so that padding behind a row cannot reach it."""

    def __init__(self, config: Wav2Vec2BertConfig) -> None:
        super().__init__()
        size, kernel = config.hidden_size, config.conv_depthwise_kernel_size
        self.dropout = config.conformer_conv_dropout
        self.layer_norm = nn.LayerNorm(size, eps=config.layer_norm_eps)
        self.pointwise_conv1 = nn.Conv1d(size, 2 * size, 1, bias=False)
        self.depthwise_conv = nn.Conv1d(size, size, kernel, groups=size, bias=False)
        self.depthwise_layer_norm = nn.LayerNorm(size, eps=config.layer_norm_eps)
        self.act = activation(config.hidden_act)
        self.pointwise_conv2 = nn.Conv1d(size, size, 1, bias=False)

    def forward(self, hidden_BTH: Tensor, valid_BT: Tensor | None, packing: Packing | None = None) -> Tensor:
        """Return what is added to each frame."""
        x_BTH = self.layer_norm(hidden_BTH)
        if valid_BT is not None:
            x_BTH = x_BTH.masked_fill(~valid_BT[:, :, None], 0.0)
        # Convolutions of one tap are dense layers.
        x_BTH = F.glu(linear(x_BTH, self.pointwise_conv1.weight[:, :, 0]), dim=-1)
        if packing is None:
            x_BTH = self._over_time(x_BTH)
        else:
            x_BTH = packing.joined(self._over_time(x_BTH[:, place]) for place in packing.places)
        x_BTH = self.act(self.depthwise_layer_norm(x_BTH))
        x_BTH = linear(x_BTH, self.pointwise_conv2.weight[:, :, 0])
        return F.dropout(x_BTH, self.dropout, self.training)

    def _over_time(self, x_BTH: Tensor) -> Tensor:
        past = self.depthwise_conv.kernel_size[0] - 1
        mixed_BHT: Tensor = self.depthwise_conv(F.pad(x_BTH.transpose(1, 2), (past, 0)))
        return mixed_BHT.transpose(1, 2)


class Wav2Vec2BertSelfAttention(nn.Module):
    """Multi-head attention of frames over frames, that knows their distance by one of `POSITIONS`."""

    def __init__(self, config: Wav2Vec2BertConfig, hidden_size: int, kind: str | None) -> None:
        super().__init__()
        self.heads, self.kind = config.num_attention_heads, kind
        self.dropout = config.attention_dropout
        head_size = hidden_size // self.heads
        self.scale = head_size**-0.5
        self.linear_q = nn.Linear(hidden_size, hidden_size)
        self.linear_k = nn.Linear(hidden_size, hidden_size)
        self.linear_v = nn.Linear(hidden_size, hidden_size)
        self.linear_out = nn.Linear(hidden_size, hidden_size)
        if kind == "relative":
            self.linear_pos = nn.Linear(hidden_size, hidden_size, bias=False)
            self.pos_bias_u = nn.Parameter(torch.zeros(self.heads, head_size))
            self.pos_bias_v = nn.Parameter(torch.zeros(self.heads, head_size))
        if kind == "relative_key":
            num_distances = config.left_max_position_embeddings + config.right_max_position_embeddings + 1
            self.distance_embedding = nn.Embedding(num_distances, head_size)

    def forward(
        self,
        hidden_BTH: Tensor,
        keys_B11T: Tensor | None,
        positions: Tensor | None,
        with_weights: bool,
        packing: Packing | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Return the attended frames, and the weights_BATT where they are asked for.

        `positions` are those of `Wav2Vec2BertEncoder.positions`, for packed frames of a row; their weights cannot be
        asked for.
        """
        q_BATD, k_BATD, v_BATD = self._projected(hidden_BTH, positions, packing)
        if packing is not None:
            mixed_BTH = packing.joined(self._mixed_rows(q_BATD, k_BATD, v_BATD, positions, packing))
            return dense(self.linear_out, mixed_BTH), None
        mixed_BATD, weights_BATT = self._mixed(q_BATD, k_BATD, v_BATD, keys_B11T, positions, with_weights)
        return dense(self.linear_out, mixed_BATD.transpose(1, 2).flatten(2)), weights_BATT

    def _projected(self, hidden_BTH: Tensor, positions: Tensor | None, packing: Packing | None) -> list[Tensor]:
        """Return q_BATD, k_BATD, v_BATD; what rotary positions turn is the layer's input."""
        turned_BTH = hidden_BTH
        if self.kind == "rotary" and positions is not None:
            if packing is not None:
                positions = packing.joined(positions[:, :size] for size in packing.sizes)
            turned_BTH = rotated(hidden_BTH, positions)
        inputs = ((self.linear_q, turned_BTH), (self.linear_k, turned_BTH), (self.linear_v, hidden_BTH))
        shape = (*hidden_BTH.shape[:2], self.heads, -1)
        return [dense(module, x_BTH).view(shape).transpose(1, 2) for module, x_BTH in inputs]

    def _mixed_rows(
        self, q_1AND: Tensor, k_1AND: Tensor, v_1AND: Tensor, positions: Tensor | None, packing: Packing
    ) -> Iterator[Tensor]:
        """Give the attended frames (1, T, H) of each row; the first frame of its padding only asks."""
        for place, count in zip(packing.places, packing.counts, strict=True):
            keys = slice(place.start, place.start + max(1, count))  # a row without frames attends to something
            q_1ATD, k_1ATD, v_1ATD = q_1AND[:, :, place], k_1AND[:, :, keys], v_1AND[:, :, keys]
            mixed_1ATD, _ = self._mixed(q_1ATD, k_1ATD, v_1ATD, None, positions, False)
            yield mixed_1ATD.transpose(1, 2).flatten(2)

    def _mixed(
        self,
        q_BATD: Tensor,
        k_BATD: Tensor,
        v_BATD: Tensor,
        keys_B11T: Tensor | None,
        positions: Tensor | None,
        with_weights: bool,
    ) -> tuple[Tensor, Tensor | None]:
        """Return values mixed_BATD, and the weights_BATT; there may be fewer keys than queries."""
        bias: Bias | None = None
        if self.kind == "relative_key" and positions is not None:
            bias = self._key_bias(q_BATD, positions[: q_BATD.shape[2], : k_BATD.shape[2]])
        elif self.kind == "relative" and positions is not None:
            bias = self._sinusoid_bias(q_BATD + self.pos_bias_v[:, None], positions, k_BATD.shape[2])
            q_BATD = q_BATD + self.pos_bias_u[:, None]
        dropout = self.dropout if self.training else 0.0
        if not with_weights:
            return attend(q_BATD, k_BATD, v_BATD, bias, keys_B11T, scale=self.scale, dropout=dropout), None
        weights_BATT = attention_weights(q_BATD, k_BATD, bias, keys_B11T, scale=self.scale)
        weights_BATT = F.dropout(weights_BATT, dropout, self.training)
        return weights_BATT @ v_BATD, weights_BATT

    def _key_bias(self, q_BATD: Tensor, index_TT: Tensor) -> Bias:
        """Return `q_i . embedding(j - i)`, scaled (Shaw et al. 2018): a product with few rows, then a look-up."""
        product_BATR = q_BATD @ (self.distance_embedding.weight.T.to(q_BATD.dtype) * self.scale)
        return lambda rows, heads: gathered(product_BATR[rows, heads], index_TT)

    def _sinusoid_bias(self, q_BATD: Tensor, waves_WH: Tensor, num_keys: int) -> Bias:
        """Return `q_i . projection(i - j)`, scaled (Dai et al. 2019, section 3.3); waves may be of more frames."""
        beyond = (waves_WH.shape[0] + 1) // 2 - q_BATD.shape[2]
        waves_WH = waves_WH[beyond : waves_WH.shape[0] - beyond]
        distances_ADW = (self.linear_pos(waves_WH) * self.scale).unflatten(-1, (self.heads, -1)).permute(1, 2, 0)
        return lambda rows, heads: skewed(q_BATD[rows, heads] @ distances_ADW[heads])[..., :num_keys]


class Wav2Vec2BertEncoderLayer(nn.Module):
    """A Conformer layer: half a feed-forward, attention, convolution, half a feed-forward."""

    def __init__(self, config: Wav2Vec2BertConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.dropout = config.attention_dropout
        self.ffn1_layer_norm = nn.LayerNorm(size, eps=config.layer_norm_eps)
        self.ffn1 = Wav2Vec2BertFeedForward(config, config.hidden_act, size)
        self.self_attn_layer_norm = nn.LayerNorm(size, eps=config.layer_norm_eps)
        self.self_attn = Wav2Vec2BertSelfAttention(config, size, config.position_embeddings_type)
        self.conv_module = Wav2Vec2BertConvolutionModule(config)
        self.ffn2_layer_norm = nn.LayerNorm(size, eps=config.layer_norm_eps)
        self.ffn2 = Wav2Vec2BertFeedForward(config, config.hidden_act, size)
        self.final_layer_norm = nn.LayerNorm(size, eps=config.layer_norm_eps)

    def forward(
        self,
        hidden_BTH: Tensor,
        valid_BT: Tensor | None,
        keys_B11T: Tensor | None,
        positions: Tensor | None,
        with_weights: bool,
        packing: Packing | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Return the layer's output, and attention weights where they are asked for."""
        hidden_BTH = torch.add(hidden_BTH, self.ffn1(self.ffn1_layer_norm(hidden_BTH)), alpha=0.5)
        normed_BTH = self.self_attn_layer_norm(hidden_BTH)
        attended_BTH, weights_BATT = self.self_attn(normed_BTH, keys_B11T, positions, with_weights, packing)
        hidden_BTH = hidden_BTH + F.dropout(attended_BTH, self.dropout, self.training)
        hidden_BTH = hidden_BTH + self.conv_module(hidden_BTH, valid_BT, packing)
        hidden_BTH = torch.add(hidden_BTH, self.ffn2(self.ffn2_layer_norm(hidden_BTH)), alpha=0.5)
        return self.final_layer_norm(hidden_BTH), weights_BATT


class Wav2Vec2BertEncoder(nn.Module):
    """The Conformer layers."""

    def __init__(self, config: Wav2Vec2BertConfig) -> None:
        super().__init__()
        self.config = config
        self.gradient_checkpointing = False
        self.layers = nn.ModuleList(Wav2Vec2BertEncoderLayer(config) for _ in range(config.num_hidden_layers))

    def forward(
        self,
        hidden_BTH: Tensor,
        valid_BT: Tensor | None,
        states: States | None,
        with_weights: bool,
        exact: bool = False,
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return the last hidden state and attention weights; `states` takes the first input and all outputs.

        A layer that is dropped in training gives its input. `exact` leaves all but the first frame of a row's padding
        open: on a CPU it is zero, and costs nothing.
        """
        keys_B11T: Tensor | None = None
        if valid_BT is not None:
            hidden_BTH = hidden_BTH.masked_fill(~valid_BT[:, :, None], 0.0)
            keys_B11T = attended_keys(valid_BT)
            valid_BT = valid_BT if keys_B11T is not None else None
        if not (with_weights or self.training) and can_pack(hidden_BTH, valid_BT, exact):
            return self._packed(hidden_BTH, valid_BT, states), ()
        hidden_BTH = F.dropout(hidden_BTH, self.config.hidden_dropout, self.training)
        positions = self.positions(hidden_BTH)
        weights = []
        for layer in self.layers:
            if states is not None:
                states.append(hidden_BTH)
            if self.training and self.config.layerdrop > 0.0 and torch.rand([]) < self.config.layerdrop:
                continue
            hidden_BTH, weights_BATT = self._run(layer, hidden_BTH, valid_BT, keys_B11T, positions, with_weights)
            if weights_BATT is not None:
                weights.append(weights_BATT)
        if states is not None:
            states.append(hidden_BTH)
        return hidden_BTH, tuple(weights)

    def _packed(self, hidden_BTH: Tensor, valid_BT: Tensor | None, states: States | None) -> Tensor:
        """Do as `forward` with the frames of rows alone, end to end."""
        packing = Packing.of(hidden_BTH, valid_BT, keeps_next=True)
        positions = self.positions(hidden_BTH)
        hidden_1NH, valid_1N = packing.pack(hidden_BTH), None if valid_BT is None else packing.pack(valid_BT)
        if states is not None:
            states.append(hidden_BTH)
        for layer in self.layers:
            hidden_1NH, _ = layer(hidden_1NH, valid_1N, None, positions, False, packing)
            if states is not None:
                states.append(packing.unpack(hidden_1NH))
        return packing.unpack(hidden_1NH)

    def positions(self, hidden_BTH: Tensor) -> Tensor | None:
        """Return what attention knows of places: index_TT, sinusoids_WH or turns_2T1D, by the kind of positions."""
        config, num_frames = self.config, hidden_BTH.shape[1]
        match config.position_embeddings_type:
            case "relative_key":
                left, right = config.left_max_position_embeddings, config.right_max_position_embeddings
                return clipped_distances(num_frames, left, right, hidden_BTH.device)
            case "relative":
                return sinusoids(num_frames, config.hidden_size, hidden_BTH)
            case "rotary":
                head_size = config.hidden_size // config.num_attention_heads
                return rotations(num_frames, head_size, config.rotary_embedding_base, hidden_BTH)
            case _:
                return None

    def _run(
        self,
        layer: nn.Module,
        hidden_BTH: Tensor,
        valid_BT: Tensor | None,
        keys_B11T: Tensor | None,
        positions: Tensor | None,
        with_weights: bool,
    ) -> tuple[Tensor, Tensor | None]:
        arguments = (hidden_BTH, valid_BT, keys_B11T, positions, with_weights)
        if self.gradient_checkpointing and self.training and torch.is_grad_enabled():
            hidden_BTH, weights_BATT = checkpoint(layer, *arguments, use_reentrant=False)
        else:
            hidden_BTH, weights_BATT = layer(*arguments)
        return hidden_BTH, weights_BATT


class Wav2Vec2BertAdapterLayer(nn.Module):
    """Attention over fewer frames: strided convolutions make its input and its residual."""

    def __init__(self, config: Wav2Vec2BertConfig) -> None:
        super().__init__()
        size, kernel, stride = config.adapter_size, config.adapter_kernel_size, config.adapter_stride
        self.dropout = config.conformer_conv_dropout
        self.residual_layer_norm = nn.LayerNorm(size, eps=config.layer_norm_eps)
        self.residual_conv = nn.Conv1d(size, 2 * size, kernel, stride, padding=stride // 2)
        self.self_attn_layer_norm = nn.LayerNorm(size, eps=config.layer_norm_eps)
        self.self_attn_conv = nn.Conv1d(size, 2 * size, kernel, stride, padding=stride // 2)
        self.self_attn = Wav2Vec2BertSelfAttention(config, size, None)
        self.ffn_layer_norm = nn.LayerNorm(size, eps=config.layer_norm_eps)
        self.ffn = Wav2Vec2BertFeedForward(config, config.adapter_act, size)

    def forward(self, hidden_BTH: Tensor, valid_BT: Tensor | None, num_frames_B: Tensor | None) -> Tensor:
        """Return hidden_BPH.

        Args:
            hidden_BTH: What the layer below gave.
            valid_BT: Frames that may reach the convolutions; None: all of them.
            num_frames_B: How many of P frames may be attended to; None: all of them.
        """
        residual_BPH = self._strided(self.residual_layer_norm(hidden_BTH), valid_BT, self.residual_conv)
        hidden_BPH = self._strided(self.self_attn_layer_norm(hidden_BTH), valid_BT, self.self_attn_conv)
        keys_B11P: Tensor | None = None
        if num_frames_B is not None:
            places_P = torch.arange(hidden_BPH.shape[1], device=hidden_BPH.device)
            keys_B11P = attended_keys(places_P < num_frames_B[:, None])
        attended_BPH, _ = self.self_attn(hidden_BPH, keys_B11P, None, False)
        hidden_BPH = F.dropout(attended_BPH, self.dropout, self.training) + residual_BPH
        output_BPH: Tensor = hidden_BPH + self.ffn(self.ffn_layer_norm(hidden_BPH))
        return output_BPH

    def _strided(self, hidden_BTH: Tensor, valid_BT: Tensor | None, conv: nn.Conv1d) -> Tensor:
        if valid_BT is not None:
            hidden_BTH = hidden_BTH.masked_fill(~valid_BT[:, :, None], 0.0)
        return F.glu(conv(hidden_BTH.transpose(1, 2)), dim=1).transpose(1, 2)


class Wav2Vec2BertAdapter(nn.Module):
    """Make the encoder's frames fewer, for a decoder that attends to them."""

    def __init__(self, config: Wav2Vec2BertConfig) -> None:
        super().__init__()
        self.config = config
        self.proj: nn.Linear | None = None
        self.proj_layer_norm: nn.LayerNorm | None = None
        if config.adapter_size != config.hidden_size:
            self.proj = nn.Linear(config.hidden_size, config.adapter_size)
            self.proj_layer_norm = nn.LayerNorm(config.adapter_size, eps=config.layer_norm_eps)
        self.layers = nn.ModuleList(Wav2Vec2BertAdapterLayer(config) for _ in range(config.num_adapter_layers))

    def forward(self, hidden_BTH: Tensor, valid_BT: Tensor | None, exact: bool) -> Tensor:
        """Return the frames behind the last layer.

        Args:
            hidden_BTH: The encoder's output.
            valid_BT: True where a frame is part of its row; None: all of them.
            exact: Keep padding from the convolutions, which the original lets into the last frame of a row.
        """
        if self.proj is not None and self.proj_layer_norm is not None:
            hidden_BTH = self.proj_layer_norm(self.proj(hidden_BTH))
        num_frames_B = None if valid_BT is None else valid_BT.sum(1)
        for layer in self.layers:
            reaching_BT: Tensor | None = None
            if exact and num_frames_B is not None:
                places_T = torch.arange(hidden_BTH.shape[1], device=hidden_BTH.device)
                reaching_BT = places_T < num_frames_B[:, None]
            is_dropped = self.training and self.config.layerdrop > 0.0 and torch.rand([]) <= self.config.layerdrop
            if num_frames_B is not None and not (exact and is_dropped):
                num_frames_B = adapted_frames(num_frames_B, self.config, exact)
            if not is_dropped:
                hidden_BTH = layer(hidden_BTH, reaching_BT, num_frames_B)
        return hidden_BTH


def adapted_frames(num_frames: Count, config: Wav2Vec2BertConfig, exact: bool) -> Count:
    """Return the frames that one adapter layer makes; the original counts with a padding that its kernel suggests."""
    padding = config.adapter_stride // 2 if exact else config.adapter_kernel_size // 2
    return (num_frames + 2 * padding - config.adapter_kernel_size) // config.adapter_stride + 1


def has_odd_mel(features_BTC: Tensor, mask_BT: Tensor) -> Tensor:
    """Tell which rows (B,) have an odd log-mel frame at their end, which is in their features and not in their mask.

    It is the first half of a frame whose second half is padding, of one value. Of a row that ends in that value itself,
    which is digital silence, nothing can tell, and the frame is taken for its own.
    """
    batch, num_frames, width = features_BTC.shape
    rows_B, count_B = torch.arange(batch, device=features_BTC.device), mask_BT.sum(-1).long()
    next_BC, last_BC = (features_BTC[rows_B, places_B.clamp(0, num_frames - 1)] for places_B in (count_B, count_B - 1))
    padding_B1 = next_BC[:, -1:]
    is_half_B = (next_BC[:, width // 2 :] == padding_B1).all(-1)
    is_whole_B = (next_BC == padding_B1).all(-1) & ~(last_BC == padding_B1).all(-1)
    return (count_B < num_frames) & is_half_B & ~is_whole_B


class Wav2Vec2BertPreTrainedModel(SpeechModel):
    """What all Wav2Vec2-BERT models share: lengths, and how weights are first drawn."""

    config_class: ClassVar[type[Config]] = Wav2Vec2BertConfig
    base_model_prefix: ClassVar[str] = "wav2vec2_bert"
    training_only: ClassVar[tuple[str, ...]] = ("masked_spec_embed",)
    input_axes: ClassVar[str] = "(B, T, C)"
    config: Wav2Vec2BertConfig

    def build_base(self) -> "Wav2Vec2BertModel":
        """Make the model that a head stands on."""
        return Wav2Vec2BertModel(self.config)

    @property
    def min_samples(self) -> int:
        """Samples of the shortest waveform that its features make a frame of."""
        shortest = samples_of_mels(MELS_PER_FRAME)
        stride = HOP_SAMPLES * MELS_PER_FRAME
        return next(n for n in itertools.count(shortest, stride) if self.num_frames(n) >= self._least_frames())

    def _least_frames(self) -> int:
        return 1

    @property
    def frame_stride(self) -> int:
        """Samples of the waveform from one frame to the next."""
        stride = HOP_SAMPLES * MELS_PER_FRAME
        return (
            stride * self.config.adapter_stride**self.config.num_adapter_layers if self.config.add_adapter else stride
        )

    @property
    def hidden_stride(self) -> int:
        """Samples of the waveform from one frame of `hidden_states`, which come before the adapter, to the next."""
        return HOP_SAMPLES * MELS_PER_FRAME

    def num_hidden_frames(self, num_samples: Count) -> Count:
        """Return the frames of `hidden_states` that waveforms of these numbers of samples give."""
        mels = num_mels(num_samples)
        return (mels + 1) // MELS_PER_FRAME * (mels >= MELS_PER_FRAME)

    @property
    def output_size(self) -> int:
        """Width of `last_hidden_state`."""
        width = self.config.output_hidden_size if self.config.add_adapter else None
        return width or self.config.hidden_size

    def num_frames(self, num_samples: Count) -> Count:
        """Return the frames that waveforms of these numbers of samples give, at least 0.

        An odd log-mel frame at the end gives one, too: nothing attends to it, but it attends to all others, and the
        original reads its label like any other.
        """
        mels = num_mels(num_samples)
        frames = self._get_feat_extract_output_lengths((mels + 1) // MELS_PER_FRAME)
        return frames * (mels >= MELS_PER_FRAME) * (frames > 0)

    def _get_feat_extract_output_lengths(self, input_lengths: Count, add_adapter: bool | None = None) -> Count:
        """Return the frames that numbers of input frames give."""
        if asked(add_adapter, self.config.add_adapter):
            for _ in range(self.config.num_adapter_layers):
                input_lengths = adapted_frames(input_lengths, self.config, self.padding == "exact")
        return input_lengths

    def _get_feature_vector_attention_mask(
        self, feature_vector_length: int, attention_mask: Tensor, add_adapter: bool | None = None
    ) -> Tensor:
        """Return valid_BP for a mask over input frames; "reference" makes a row without frames all valid."""
        num_frames_B = self._get_feat_extract_output_lengths(attention_mask.sum(-1), add_adapter)
        if self.padding == "reference":
            num_frames_B = torch.where(num_frames_B < 1, num_frames_B + feature_vector_length, num_frames_B)
        return self._valid_frames(num_frames_B, feature_vector_length)

    def _seems_padded(self, inputs: Tensor) -> Tensor:
        """Tell which rows (B,) end in a frame of one value."""
        end_BC = inputs[:, -1]
        return (end_BC == end_BC[:, -1:]).all(-1)

    def _init_module(self, module: nn.Module) -> None:
        match module:
            case Wav2Vec2BertModel() if module.masked_spec_embed is not None:
                nn.init.uniform_(module.masked_spec_embed)
            case Wav2Vec2BertSelfAttention(kind="relative"):
                nn.init.xavier_uniform_(module.pos_bias_u)
                nn.init.xavier_uniform_(module.pos_bias_v)
            case Wav2Vec2BertFeatureProjection(projection=projection):
                bound = math.sqrt(1 / projection.in_features)
                nn.init.uniform_(projection.weight, -bound, bound)
                nn.init.uniform_(projection.bias, -bound, bound)
            case nn.Linear():
                nn.init.normal_(module.weight, std=self.config.initializer_range)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            case nn.Embedding():
                nn.init.normal_(module.weight, std=self.config.initializer_range)
            case nn.Conv1d():
                nn.init.kaiming_normal_(module.weight)
                if module.bias is not None:
                    bound = math.sqrt(module.groups / (module.in_channels * module.kernel_size[0]))
                    nn.init.uniform_(module.bias, -bound, bound)
            case nn.LayerNorm():
                nn.init.ones_(module.weight)
                nn.init.zeros_(module.bias)


class Wav2Vec2BertModel(Wav2Vec2BertPreTrainedModel):
    """The encoder, and the adapter behind it where there is one, without a head."""

    outputs: ClassVar[tuple[str, ...]] = ("Embedding",)

    def __init__(self, config: Wav2Vec2BertConfig) -> None:
        super().__init__(config)
        self.feature_projection = Wav2Vec2BertFeatureProjection(config)
        self.masked_spec_embed: nn.Parameter | None = None
        if config.mask_time_prob > 0.0 or config.mask_feature_prob > 0.0:
            self.masked_spec_embed = nn.Parameter(torch.rand(config.hidden_size))
        self.encoder = Wav2Vec2BertEncoder(config)
        self.adapter = Wav2Vec2BertAdapter(config) if config.add_adapter else None
        self.intermediate_ffn: Wav2Vec2BertFeedForward | None = None
        if config.use_intermediate_ffn_before_adapter:
            self.intermediate_ffn = Wav2Vec2BertFeedForward(config, "relu", config.hidden_size)

    def forward(
        self,
        input_features: Tensor,
        attention_mask: Tensor | None = None,
        mask_time_indices: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> ModelOutput | tuple[Any, ...]:
        """Encode log-mel features.

        Args:
            input_features: (B, T, C) pairs of normalised log-mel frames, see `SeamlessM4TFeatureExtractor`.
            attention_mask: (B, T), nonzero where a frame is part of its row, on the left; None: all of them.
            mask_time_indices: (B, T), true where a frame is replaced by the learned mask.
            output_attentions: Ask for `attentions`, (B, A, T, T) for each layer; None: as the configuration says.
            output_hidden_states: Ask for `hidden_states`, (B, T, H) before the first layer and after each.
            return_dict: False gives a plain tuple.
        """
        output = self.encode(input_features, attention_mask, mask_time_indices, output_attentions, output_hidden_states)
        return self.returned(output, return_dict)

    def encode(
        self,
        features_BTC: Tensor,
        mask_BT: Tensor | None = None,
        mask_time_indices: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        states: States | None = None,
    ) -> Wav2Vec2BaseModelOutput:
        """Do what `forward` does, and always return the named output; `states` takes hidden states, too."""
        self.check_inputs(features_BTC, mask_BT)
        with_weights = asked(output_attentions, self.config.output_attentions)
        kept = KeptStates(states) if asked(output_hidden_states, self.config.output_hidden_states) else None
        valid_BT = None if mask_BT is None else mask_BT.bool()
        hidden_BTH, features_BTC = self.feature_projection(features_BTC.to(self.dtype))
        hidden_BTH = augmented(
            hidden_BTH, self.config, self.masked_spec_embed, mask_time_indices, valid_BT, self.training
        )
        hidden_BTH, weights = self.encoder(
            hidden_BTH, valid_BT, states if kept is None else kept, with_weights, self.padding == "exact"
        )
        if self.intermediate_ffn is not None:
            hidden_BTH = torch.add(hidden_BTH, self.intermediate_ffn(hidden_BTH), alpha=0.5)
        if self.adapter is not None:
            hidden_BTH = self.adapter(hidden_BTH, valid_BT, self.padding == "exact")
        return Wav2Vec2BaseModelOutput(
            last_hidden_state=hidden_BTH,
            extract_features=features_BTC,
            hidden_states=None if kept is None else tuple(kept),
            attentions=weights if with_weights else None,
        )


class Wav2Vec2BertForCTC(ForCTC, Wav2Vec2BertPreTrainedModel):
    """The encoder with a linear head over the vocabulary; `pad_token_id` is the blank."""

    def forward(
        self,
        input_features: Tensor,
        attention_mask: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        labels: Tensor | None = None,
    ) -> CausalLMOutput | tuple[Any, ...]:
        """Return logits_BPV, and the CTC loss where `labels` are given: see `ForCTC.forward`."""
        return super().forward(
            input_features, attention_mask, output_attentions, output_hidden_states, return_dict, labels
        )

    def _decoded_frames(self, inputs: Tensor, mask_BS: Tensor) -> Tensor:
        """Return how many frames each row has alone, the one of an odd log-mel frame at its end among them."""
        return self._get_feat_extract_output_lengths(mask_BS.sum(-1) + has_odd_mel(inputs, mask_BS))


class Wav2Vec2BertForSequenceClassification(ForSequenceClassification, Wav2Vec2BertPreTrainedModel):
    """The encoder with classes over the mean of its frames."""

    def forward(
        self,
        input_features: Tensor,
        attention_mask: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        labels: Tensor | None = None,
    ) -> SequenceClassifierOutput | tuple[Any, ...]:
        """Return logits_BN, and a loss by `config.problem_type` where labels are given."""
        return super().forward(
            input_features, attention_mask, output_attentions, output_hidden_states, return_dict, labels
        )


class Wav2Vec2BertForAudioFrameClassification(ForAudioFrameClassification, Wav2Vec2BertPreTrainedModel):
    """The encoder with classes for each frame, such as who speaks."""

    def forward(
        self,
        input_features: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> TokenClassifierOutput | tuple[Any, ...]:
        """Return logits_BTN, and the cross entropy where one-hot labels (B, T, N) are given."""
        return super().forward(
            input_features, attention_mask, labels, output_attentions, output_hidden_states, return_dict
        )


class Wav2Vec2BertForXVector(ForXVector, Wav2Vec2BertPreTrainedModel):
    """The encoder with a speaker embedding over its frames (Snyder et al. 2018)."""

    config: Wav2Vec2BertConfig

    def forward(
        self,
        input_features: Tensor,
        attention_mask: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        labels: Tensor | None = None,
    ) -> XVectorOutput | tuple[Any, ...]:
        """Return embeddings and logits (B, xvector_output_dim), and a loss where class numbers (B,) are given."""
        return super().forward(
            input_features, attention_mask, output_attentions, output_hidden_states, return_dict, labels
        )

    def _seen_frames(self, num_inputs_B: Tensor) -> Tensor:
        return self._get_feat_extract_output_lengths(num_inputs_B, self._adapter_is_seen)
