"""FastConformer (Rekesh et al. 2023, arXiv:2305.05084): subsampling of log-mel frames, and the layer.

Names of modules and weights are those of Parakeet checkpoints in transformers.

Legend: B batch, M log-mel frames, N mel bins, C channels of the subsampling, T frames, H hidden, I inner, A attention
heads, D head, W distances of T frames (2T - 1).
"""

import math
from functools import cache, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raysp.models.base.configuration import Config
from raysp.models.base.folded import Folded
from raysp.models.base.kernels import activation, dense, dropped, is_inference_on_cpu, linear
from raysp.models.base.row_layout import Count, Layout
from raysp.models.encoder.conformer import sinusoids
from raysp.models.encoder.relative_attention import BiasOf, bias_of_products
from raysp.models.encoder.transformer import attended

TILE_FRAMES = 8
"""Frames of the subsampling that are computed at a time: their inputs, 32 times as wide, fit into a core's cache."""
KEPT_FRAMES = 400
"""Frames of rows (32 s) up to which projected distances are cached; longer rows project their own each time."""


class FastConformerConfig(Config):
    """Fields that subsampling and layer read, with the defaults of `ParakeetEncoderConfig` in transformers."""

    hidden_size: int = 1024
    num_attention_heads: int = 8
    intermediate_size: int = 4096
    hidden_act: str = "silu"
    attention_bias: bool = True
    convolution_bias: bool = True
    conv_kernel_size: int = 9
    subsampling_factor: int = 8
    subsampling_conv_channels: int = 256
    num_mel_bins: int = 80
    subsampling_conv_kernel_size: int = 3
    subsampling_conv_stride: int = 2
    activation_dropout: float = 0.1
    attention_dropout: float = 0.1


def num_subsamplings(config: FastConformerConfig) -> int:
    """Return the number of strided convolutions."""
    return int(math.log2(config.subsampling_factor))


def subsampled(count: Count, config: FastConformerConfig) -> Count:
    """Return the number of log-mel frames, or of mel bins, after the strided convolutions."""
    kernel, stride = config.subsampling_conv_kernel_size, config.subsampling_conv_stride
    for _ in range(num_subsamplings(config)):
        count = _strided(count, kernel, stride)
    return count


def _strided(count: Count, kernel: int, stride: int) -> Count:
    """Return the number of frames after one strided convolution."""
    return (count + (kernel - 1) // 2 * 2 - kernel) // stride + 1


class Subsampling(nn.Module):
    """Strided convolutions over time and mel bins, all but the first separable, and a dense layer."""

    def __init__(self, config: FastConformerConfig) -> None:
        super().__init__()
        channels, kernel = config.subsampling_conv_channels, config.subsampling_conv_kernel_size
        strided: dict[str, Any] = {"stride": config.subsampling_conv_stride, "padding": (kernel - 1) // 2}
        layers: list[nn.Module] = [nn.Conv2d(1, channels, kernel, **strided), nn.ReLU()]
        for _ in range(num_subsamplings(config) - 1):
            layers.append(nn.Conv2d(channels, channels, kernel, groups=channels, **strided))
            layers += [nn.Conv2d(channels, channels, 1), nn.ReLU()]
        self.layers = nn.ModuleList(layers)
        self.linear = nn.Linear(channels * subsampled(config.num_mel_bins, config), config.hidden_size)

    def forward(self, mels_BMN: Tensor, layout: Layout, frames: Layout) -> Tensor:
        """Return hidden_BTH, as its layout has them.

        Args:
            mels_BMN: Log-mel frames.
            layout: Their layout; convolutions read zeros in padding.
            frames: Layout of the result.
        """
        if not frames.is_packed:
            return dense(self.linear, self._convolved(mels_BMN, layout))
        # Over rows end to end the convolutions would read the neighbour's first frames.
        rows = (mels_MN[None, :length] for mels_MN, length in zip(mels_BMN, layout.host_lengths, strict=True))
        return dense(self.linear, frames.joined(map(self._convolved_row, rows)))

    def _convolved_row(self, mels_1MN: Tensor) -> Tensor:
        """Return the input (1, T, channels times bins) of the dense layer for one row."""
        if mels_1MN.shape[1] == 0:
            return mels_1MN.new_zeros(1, 0, self.linear.in_features)
        if is_inference_on_cpu(mels_1MN, self.linear.weight):
            return self._in_tiles(mels_1MN[0])[None]
        return self._convolved(mels_1MN, Layout.of(mels_1MN, None))

    def _convolved(self, mels_BMN: Tensor, layout: Layout) -> Tensor:
        """Return the input of the dense layer (B, T, channels times bins)."""
        x_BCMN = layout.zeroed(mels_BMN)[:, None]
        for layer in self.layers:
            if isinstance(layer, nn.Conv2d):
                x_BCMN = layer(x_BCMN)
                count = partial(_strided, kernel=layer.kernel_size[0], stride=layer.stride[0])
                layout = layout.after(count, x_BCMN.shape[2])
                if layout.mask is not None:
                    x_BCMN = x_BCMN.masked_fill(~layout.mask[:, None, :, None], 0.0)
            else:
                x_BCMN = F.relu(x_BCMN, inplace=not x_BCMN.requires_grad)
        return x_BCMN.transpose(1, 2).flatten(2)

    def _in_tiles(self, mels_MN: Tensor) -> Tensor:
        """Return the frames of one row (T, channels times bins), on a CPU in a quarter of the time of a batch."""
        first, *pairs = (layer for layer in self.layers if isinstance(layer, nn.Conv2d))
        strided, dense_layers = [first, *pairs[::2]], [None, *pairs[1::2]]
        counts = [len(mels_MN)]
        for conv in strided:
            counts.append(_strided(counts[-1], conv.kernel_size[0], conv.stride[0]))

        def output(number: int, frames: range) -> Tensor:
            """Return some frames (1, C, frames, bins) after `number` strided convolutions; 0: of the input."""
            if number == 0:
                return mels_MN[None, None, frames.start : frames.stop]
            conv, pointwise = strided[number - 1], dense_layers[number - 1]
            read = _read(frames, conv.kernel_size[0], conv.stride[0], int(conv.padding[0]))
            # Zeros pad only the ends of the row; frames next to a tile are computed again.
            within = range(max(read.start, 0), min(read.stop, counts[number - 1]))
            x_1CMN = F.pad(output(number - 1, within), (0, 0, within.start - read.start, read.stop - within.stop))
            return _strided_last(conv, x_1CMN).relu_() if pointwise is None else _separable(conv, pointwise, x_1CMN)

        places = range(0, counts[-1], TILE_FRAMES)
        tiles = [output(len(strided), range(at, min(at + TILE_FRAMES, counts[-1]))) for at in places]
        return torch.cat([tile.transpose(1, 2).flatten(2)[0] for tile in tiles])


def _read(frames: range, kernel: int, stride: int, padding: int) -> range:
    """Return the input frames that a convolution reads for some of its output, padding included."""
    return range(frames.start * stride - padding, (frames.stop - 1) * stride - padding + kernel)


def _strided_last(conv: nn.Conv2d, x_1CMN: Tensor) -> Tensor:
    """Apply a convolution without padding in time; input and output have their channels last in memory."""
    x_1CMN = x_1CMN.contiguous(memory_format=torch.channels_last)
    weight = conv.weight.contiguous(memory_format=torch.channels_last)
    y_1CMN = F.conv2d(x_1CMN, weight, conv.bias, conv.stride, (0, conv.padding[1]), groups=conv.groups)  # type: ignore[arg-type]
    return y_1CMN.contiguous(memory_format=torch.channels_last)


def _separable(depthwise: nn.Conv2d, pointwise: nn.Conv2d, x_1CMN: Tensor) -> Tensor:
    """Apply a strided convolution and one of a single tap, which is a dense layer, then ReLU."""
    x_1MNC = _strided_last(depthwise, x_1CMN).permute(0, 2, 3, 1)
    # any_rows: tiles have few different numbers of frames, for each of which oneDNN caches a program.
    return linear(x_1MNC, pointwise.weight[:, :, 0, 0], pointwise.bias, "relu", any_rows=True).permute(0, 3, 1, 2)


class FeedForward(nn.Module):
    """Two dense layers with an activation between them."""

    def __init__(self, config: FastConformerConfig) -> None:
        super().__init__()
        self.config = config
        activation(config.hidden_act)  # raises if unknown
        self.linear1 = nn.Linear(config.hidden_size, config.intermediate_size, bias=config.attention_bias)
        self.linear2 = nn.Linear(config.intermediate_size, config.hidden_size, bias=config.attention_bias)

    def forward(self, hidden_BTH: Tensor) -> Tensor:
        """Return (B, T, H), each frame on its own."""
        inner_BTI = dense(self.linear1, hidden_BTH, self.config.hidden_act)
        return dense(self.linear2, dropped(inner_BTI, self.config.activation_dropout, self.training))


class SelfAttention(nn.Module):
    """Multi-head self-attention with sinusoids of distances (Dai et al. 2019, section 3.3)."""

    def __init__(self, config: FastConformerConfig) -> None:
        super().__init__()
        size, bias, self.config = config.hidden_size, config.attention_bias, config
        self.heads = config.num_attention_heads
        self.scale = (size // self.heads) ** -0.5
        self.q_proj = nn.Linear(size, size, bias=bias)
        self.k_proj = nn.Linear(size, size, bias=bias)
        self.v_proj = nn.Linear(size, size, bias=bias)
        self.o_proj = nn.Linear(size, size, bias=bias)
        self.relative_k_proj = nn.Linear(size, size, bias=False)
        self.bias_u = nn.Parameter(torch.zeros(self.heads, size // self.heads))
        self.bias_v = nn.Parameter(torch.zeros(self.heads, size // self.heads))
        self._distances: Folded[Tensor] = Folded()

    def forward(
        self, hidden_BTH: Tensor, layout: Layout, waves_WH: Tensor | None, with_weights: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Return the attended frames, and weights_BATT if requested.

        `waves_WH` are the sinusoids of the longest row; None for packed rows.
        """
        shape = (*hidden_BTH.shape[:2], self.heads, -1)
        q_BATD, k_BATD, v_BATD = (
            dense(module, hidden_BTH).view(shape).transpose(1, 2) for module in (self.q_proj, self.k_proj, self.v_proj)
        )
        placed_BATD, q_BATD = q_BATD + self.bias_v[:, None], q_BATD + self.bias_u[:, None]
        bias_of = self._near_bias(placed_BATD) if waves_WH is None else self._whole_bias(placed_BATD, waves_WH)
        dropout = self.config.attention_dropout if self.training else 0.0
        mixed_BTH, weights_BATT = attended(
            q_BATD, k_BATD, v_BATD, layout, bias_of, scale=self.scale, dropout=dropout, with_weights=with_weights
        )
        return dense(self.o_proj, mixed_BTH), weights_BATT

    def _whole_bias(self, placed_BATD: Tensor, waves_WH: Tensor) -> BiasOf:
        """Return the products of frames with the keys of their distances, of a batch."""
        distances_AWD = self._projected(waves_WH)
        return bias_of_products(placed_BATD, lambda _: distances_AWD)

    def _near_bias(self, placed_1AND: Tensor) -> BiasOf:
        """Return the products of frames with the keys of their distances, of each packed row in tiles."""
        distances_of = cache(partial(self._distances_of, like=placed_1AND))
        return bias_of_products(placed_1AND, lambda num_frames: distances_of(max(KEPT_FRAMES, num_frames)))

    def _projected(self, waves_WH: Tensor) -> Tensor:
        """Return the scaled keys of distances, (A, W, D)."""
        keys_WAD = dense(self.relative_k_proj, waves_WH).view(waves_WH.shape[0], self.heads, -1)
        distances_AWD: Tensor = keys_WAD.transpose(0, 1) * self.scale
        return distances_AWD

    def _distances_of(self, num_frames: int, like: Tensor) -> Tensor:
        """Return distances_AWD; the distances that short rows share are cached."""
        waves_WH = sinusoids(num_frames, self.config.hidden_size, like)
        if num_frames > KEPT_FRAMES:
            return self._projected(waves_WH)
        return self._distances((self.relative_k_proj.weight, waves_WH), lambda: self._projected(waves_WH).contiguous())


class ConvolutionModule(nn.Module):
    """Gated depthwise convolution over neighbouring frames with batch normalisation."""

    def __init__(self, config: FastConformerConfig) -> None:
        super().__init__()
        size, kernel, bias = config.hidden_size, config.conv_kernel_size, config.convolution_bias
        self.act = activation(config.hidden_act)
        self.pointwise_conv1 = nn.Conv1d(size, 2 * size, 1, bias=bias)
        self.depthwise_conv = nn.Conv1d(size, size, kernel, padding=kernel // 2, groups=size, bias=bias)
        self.norm = nn.BatchNorm1d(size)
        self.pointwise_conv2 = nn.Conv1d(size, size, 1, bias=bias)

    def forward(self, hidden_BTH: Tensor, layout: Layout) -> Tensor:
        """Return the residual (B, T, H).

        Training normalises by the running statistics, too, and leaves them unchanged: with statistics of a batch, a row
        would depend on other rows.
        """
        x_BTH = F.glu(pointwise(self.pointwise_conv1, hidden_BTH), dim=-1)
        x_BTH = layout.mixed(partial(self._over_time, weights=self._folded()), layout.zeroed(x_BTH))
        return pointwise(self.pointwise_conv2, self.act(x_BTH))

    def _folded(self) -> tuple[Tensor, Tensor]:
        """Return the weight (H, 1, K) and bias (H,) of the convolution with the normalisation after it."""
        norm, conv = self.norm, self.depthwise_conv
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale_H = norm.weight * (norm.running_var + norm.eps).rsqrt()
        offset_H = norm.running_mean if conv.bias is None else norm.running_mean - conv.bias
        return conv.weight * scale_H[:, None, None], norm.bias - offset_H * scale_H

    def _over_time(self, x_BTH: Tensor, weights: tuple[Tensor, Tensor]) -> Tensor:
        """Apply the depthwise convolution over time as a 2D convolution of height 1, which accepts channels last."""
        if x_BTH.shape[1] == 0:
            return x_BTH
        conv, (weight_H1K, bias_H) = self.depthwise_conv, weights
        pixels_BH1T = x_BTH.transpose(1, 2)[:, :, None]
        mixed_BH1T = F.conv2d(
            pixels_BH1T, weight_H1K[:, :, None], bias_H, padding=(0, int(conv.padding[0])), groups=conv.groups
        )
        return mixed_BH1T[:, :, 0].transpose(1, 2)


def pointwise(conv: nn.Conv1d, x_BTH: Tensor) -> Tensor:
    """Apply a convolution of one tap, which is a dense layer."""
    return linear(x_BTH, conv.weight[:, :, 0], conv.bias)


class FastConformerLayer(nn.Module):
    """A Conformer layer: half a feed-forward, attention, convolution, half a feed-forward."""

    def __init__(self, config: FastConformerConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.feed_forward1 = FeedForward(config)
        self.self_attn = SelfAttention(config)
        self.conv = ConvolutionModule(config)
        self.feed_forward2 = FeedForward(config)
        self.norm_feed_forward1 = nn.LayerNorm(size)
        self.norm_self_att = nn.LayerNorm(size)
        self.norm_conv = nn.LayerNorm(size)
        self.norm_feed_forward2 = nn.LayerNorm(size)
        self.norm_out = nn.LayerNorm(size)

    def forward(
        self, hidden_BTH: Tensor, layout: Layout, waves_WH: Tensor | None, with_weights: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Return the layer's output, and attention weights if requested."""
        hidden_BTH = torch.add(hidden_BTH, self.feed_forward1(self.norm_feed_forward1(hidden_BTH)), alpha=0.5)
        normed_BTH = self.norm_self_att(hidden_BTH)
        attended_BTH, weights_BATT = self.self_attn(normed_BTH, layout, waves_WH, with_weights)
        hidden_BTH = hidden_BTH + attended_BTH
        hidden_BTH = hidden_BTH + self.conv(self.norm_conv(hidden_BTH), layout)
        hidden_BTH = torch.add(hidden_BTH, self.feed_forward2(self.norm_feed_forward2(hidden_BTH)), alpha=0.5)
        return self.norm_out(hidden_BTH), weights_BATT
