"""The Conformer layer (Gulati et al. 2020, arXiv:2005.08100) with the positions of Wav2Vec2-BERT.

In this order: positions, convolution, attention, layer. The feed-forward is in transformer.py, biases by distance
are in relative_attention.py.

Legend: B batch, T frames, H hidden, A attention heads, D head, R rows of a table of distances, W distances of T frames
(2T - 1).
"""

import math
from collections.abc import Callable
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raysp.models.base.kernels import activation, dense, dropped, linear
from raysp.models.base.row_layout import Layout
from raysp.models.encoder.relative_attention import Bias, BiasOf, bias_of_products, gathered
from raysp.models.encoder.transformer import FeedForward, XVectorConfig, attended

POSITIONS = ("relative_key", "relative", "rotary", None)
"""Kinds of positions, as `position_embeddings_type` names them."""


class ConformerConfig(XVectorConfig):
    """Fields that layers and adapter read, with the defaults of `Wav2Vec2BertConfig` in transformers."""

    layerdrop: float = 0.1
    position_embeddings_type: str | None = "relative_key"
    left_max_position_embeddings: int = 64
    right_max_position_embeddings: int = 8
    conv_depthwise_kernel_size: int = 31
    conformer_conv_dropout: float = 0.1
    num_adapter_layers: int = 1
    adapter_act: str = "relu"

    @property
    def adapter_padding(self) -> int:
        """Zeros on each side of the frames of a convolution of the adapter."""
        return self.adapter_stride // 2


def sinusoids(num_frames: int, hidden_size: int, like: Tensor) -> Tensor:
    """Return sines and cosines_WH of the distances `i - j` from `T - 1` down to `1 - T` (Dai et al. 2019)."""
    most = _table_frames(num_frames)
    table_WH = _table(_sinusoids, (most, hidden_size), like.dtype, like.device)
    return table_WH[most - num_frames : most + num_frames - 1]


def rotations(num_frames: int, head_size: int, base: int, like: Tensor) -> Tensor:
    """Return cosine and sine (2, T, 1, D) that rotate each frame by its place (Su et al. 2021, arXiv:2104.09864)."""
    arguments = (_table_frames(num_frames), head_size, base)
    return _table(_rotations, arguments, like.dtype, like.device)[:, :num_frames]


def _table_frames(num_frames: int) -> int:
    """Return the size of a table for at least `num_frames`; few sizes occur, so few tables are copied to a GPU."""
    return max(256, 1 << (num_frames - 1).bit_length())


@lru_cache(maxsize=8)
def _table(make: Callable[..., Tensor], arguments: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return a table on a device, made on the CPU so that its values are the same everywhere."""
    # A table that is kept may serve a backward pass later, which inference tensors cannot.
    with torch.inference_mode(False), torch.no_grad():
        return make(*arguments).to(device, dtype)


def _sinusoids(num_frames: int, hidden_size: int) -> Tensor:
    distance_W1 = torch.arange(num_frames - 1, -num_frames, -1, device="cpu").float()[:, None]
    rates = torch.exp(torch.arange(0, hidden_size, 2, device="cpu").float() * -(math.log(10000.0) / hidden_size))
    waves_WH = torch.empty(distance_W1.shape[0], hidden_size, device="cpu")
    waves_WH[:, 0::2] = torch.sin(distance_W1 * rates)
    waves_WH[:, 1::2] = torch.cos(distance_W1 * rates)
    return waves_WH


def _rotations(num_frames: int, head_size: int, base: int) -> Tensor:
    rates = 1.0 / (base ** (torch.arange(0, head_size, 2, device="cpu").float() / head_size))
    angles_TD = (torch.arange(num_frames, device="cpu").float()[:, None] * rates).repeat(1, 2)
    return torch.stack([angles_TD.cos(), angles_TD.sin()])[:, :, None]


def rotated(x_BTH: Tensor, turns_2T1D: Tensor) -> Tensor:
    """Return frames with each head rotated; the halves of a head are the two coordinates."""
    x_BTAD = x_BTH.reshape(*x_BTH.shape[:2], -1, turns_2T1D.shape[-1])
    first, second = x_BTAD.chunk(2, dim=-1)
    turned_BTAD = x_BTAD * turns_2T1D[0] + torch.cat([-second, first], dim=-1) * turns_2T1D[1]
    return turned_BTAD.flatten(2)


class ConvolutionModule(nn.Module):
    """Depthwise convolution over past frames; causal, so that padding after a row cannot affect it."""

    def __init__(self, config: ConformerConfig) -> None:
        super().__init__()
        size, kernel = config.hidden_size, config.conv_depthwise_kernel_size
        self.dropout = config.conformer_conv_dropout
        self.layer_norm = nn.LayerNorm(size, eps=config.layer_norm_eps)
        self.pointwise_conv1 = nn.Conv1d(size, 2 * size, 1, bias=False)
        self.depthwise_conv = nn.Conv1d(size, size, kernel, groups=size, bias=False)
        self.depthwise_layer_norm = nn.LayerNorm(size, eps=config.layer_norm_eps)
        self.act = activation(config.hidden_act)
        self.pointwise_conv2 = nn.Conv1d(size, size, 1, bias=False)

    def forward(self, hidden_BTH: Tensor, layout: Layout) -> Tensor:
        """Return the residual (B, T, H)."""
        x_BTH = layout.zeroed(self.layer_norm(hidden_BTH))
        # Convolutions of one tap are dense layers.
        x_BTH = F.glu(linear(x_BTH, self.pointwise_conv1.weight[:, :, 0]), dim=-1)
        x_BTH = self.act(self.depthwise_layer_norm(layout.mixed(self._over_time, x_BTH)))
        x_BTH = linear(x_BTH, self.pointwise_conv2.weight[:, :, 0])
        return dropped(x_BTH, self.dropout, self.training)

    def _over_time(self, x_BTH: Tensor) -> Tensor:
        past = self.depthwise_conv.kernel_size[0] - 1
        mixed_BHT: Tensor = self.depthwise_conv(F.pad(x_BTH.transpose(1, 2), (past, 0)))
        return mixed_BHT.transpose(1, 2)


class SelfAttention(nn.Module):
    """Multi-head self-attention over frames, with one of `POSITIONS`."""

    def __init__(self, config: ConformerConfig, hidden_size: int, kind: str | None) -> None:
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
            self.most_distances = (config.left_max_position_embeddings, config.right_max_position_embeddings)
            self.distance_embedding = nn.Embedding(sum(self.most_distances) + 1, head_size)

    def forward(
        self, hidden_BTH: Tensor, layout: Layout, positions: Tensor | None, with_weights: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Return the attended frames, and weights_BATT if requested.

        `positions` are the result of `Wav2Vec2BertEncoder.positions`.
        """
        turned_BTH = hidden_BTH
        if self.kind == "rotary" and positions is not None:  # they turn the layer's input, not its projections
            turned_BTH = rotated(hidden_BTH, positions)
        inputs = ((self.linear_q, turned_BTH), (self.linear_k, turned_BTH), (self.linear_v, hidden_BTH))
        shape = (*hidden_BTH.shape[:2], self.heads, -1)
        q_BATD, k_BATD, v_BATD = (dense(module, x_BTH).view(shape).transpose(1, 2) for module, x_BTH in inputs)
        bias_of: BiasOf | None = None
        if self.kind == "relative_key" and positions is not None:
            bias_of = self._key_bias(q_BATD, positions)
        elif self.kind == "relative" and positions is not None:
            bias_of = self._sinusoid_bias(q_BATD + self.pos_bias_v[:, None], positions)
            q_BATD = q_BATD + self.pos_bias_u[:, None]
        dropout = self.dropout if self.training else 0.0
        mixed_BTH, weights_BATT = attended(
            q_BATD, k_BATD, v_BATD, layout, bias_of, scale=self.scale, dropout=dropout, with_weights=with_weights
        )
        return dense(self.linear_out, mixed_BTH), weights_BATT

    def _key_bias(self, q_BATD: Tensor, index_TT: Tensor) -> BiasOf:
        """Return `q_i . embedding(j - i)`, scaled (Shaw et al. 2018): a product with few rows, then a lookup."""
        table_DR = self.distance_embedding.weight.T.to(q_BATD.dtype) * self.scale

        def bias_of(queries: slice, keys: slice) -> Bias:
            near_TT = index_TT[: queries.stop - queries.start, : keys.stop - keys.start]
            product_BATR = q_BATD[:, :, queries] @ table_DR
            return lambda rows, heads: gathered(product_BATR[rows, heads], near_TT)

        return bias_of

    def _sinusoid_bias(self, q_BATD: Tensor, waves_WH: Tensor) -> BiasOf:
        """Return `q_i . projection(i - j)`, scaled (Dai et al. 2019, section 3.3)."""
        distances_AWD = (self.linear_pos(waves_WH) * self.scale).unflatten(-1, (self.heads, -1)).transpose(0, 1)
        return bias_of_products(q_BATD, lambda _: distances_AWD)


class ConformerLayer(nn.Module):
    """A Conformer layer: half a feed-forward, attention, convolution, half a feed-forward."""

    def __init__(self, config: ConformerConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.dropout = config.attention_dropout
        self.ffn1_layer_norm = nn.LayerNorm(size, eps=config.layer_norm_eps)
        self.ffn1 = FeedForward(config, size, config.hidden_act)
        self.self_attn_layer_norm = nn.LayerNorm(size, eps=config.layer_norm_eps)
        self.self_attn = SelfAttention(config, size, config.position_embeddings_type)
        self.conv_module = ConvolutionModule(config)
        self.ffn2_layer_norm = nn.LayerNorm(size, eps=config.layer_norm_eps)
        self.ffn2 = FeedForward(config, size, config.hidden_act)
        self.final_layer_norm = nn.LayerNorm(size, eps=config.layer_norm_eps)

    def forward(
        self, hidden_BTH: Tensor, layout: Layout, positions: Tensor | None, with_weights: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Return the layer's output, and attention weights if requested."""
        hidden_BTH = torch.add(hidden_BTH, self.ffn1(self.ffn1_layer_norm(hidden_BTH)), alpha=0.5)
        normed_BTH = self.self_attn_layer_norm(hidden_BTH)
        attended_BTH, weights_BATT = self.self_attn(normed_BTH, layout, positions, with_weights)
        hidden_BTH = hidden_BTH + dropped(attended_BTH, self.dropout, self.training)
        hidden_BTH = hidden_BTH + self.conv_module(hidden_BTH, layout)
        hidden_BTH = torch.add(hidden_BTH, self.ffn2(self.ffn2_layer_norm(hidden_BTH)), alpha=0.5)
        return self.final_layer_norm(hidden_BTH), weights_BATT
