"""The convolutional front end of wav2vec 2.0 and related encoders of waveforms (Baevski et al. 2020, section 2).

It differs from the usual implementation in three ways, which change values by rounding only:

- Channels are the last axis: a strided convolution is a matrix product over windows, and layer norm needs no
  transposes.
- The group norm over time of the first layer is folded into that layer's weights. The mean and variance of `W x` are
  `W mean(x)` and `W cov(x) W^T`, over windows of ten samples instead of hundreds of channels.
- Each frame then depends on its own samples only, and a clip is computed in chunks that stay in the cache.

Legend: B batch, S samples, T frames, C channels, K taps of a kernel.
"""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from raysp.errors import CheckpointError
from raysp.models.base.folded import Folded
from raysp.models.base.kernels import activation, linear, strided_convolution
from raysp.models.base.row_layout import Count, Layout
from raysp.models.encoder.transformer import WaveformConfig

Product = Callable[[Tensor], Tensor]
"""A layer's function of frames (B, T, C), without norm and activation."""

NORM_EPS = 1e-5  # of both norms; config.layer_norm_eps does not apply
CHUNK_FRAMES = 64  # output frames per chunk on a CPU: 8 MB of first-layer activations at 512 channels
WIDE_CHANNELS = 512  # narrower first layers have longer chunks, up to MAX_CHUNK_FRAMES
MAX_CHUNK_FRAMES = 256
BATCH_SAMPLES = 1 << 22  # samples per pass on a GPU: about 1 GB of bfloat16 activations at 512 channels
LEAST_FRAMES = 8


def conv_output_frames(samples: Count, kernels: Sequence[int], strides: Sequence[int]) -> Count:
    """Return the number of frames after convolutions without padding; below 1 for too few samples."""
    for kernel, stride in zip(kernels, strides, strict=True):
        samples = (samples - kernel) // stride + 1
    return samples


def usual_frames(num_frames: int) -> int:
    """Round up to a number of frames that recurs: oneDNN caches a program for each number."""
    step = max(LEAST_FRAMES, 1 << max(0, num_frames.bit_length() - 3))
    return -(-num_frames // step) * step


def receptive_samples(kernels: Sequence[int], strides: Sequence[int]) -> int:
    """Return the receptive field of an output frame in samples, which is also the shortest input."""
    samples = 1
    for kernel, stride in zip(reversed(kernels), reversed(strides), strict=True):
        samples = (samples - 1) * stride + kernel
    return samples


class ConvLayer(nn.Module):
    """Weights of one layer: `conv`, and `layer_norm` if the layer has a norm."""

    layer_norm: nn.GroupNorm | nn.LayerNorm

    def __init__(self, in_channels: int, channels: int, kernel: int, stride: int, *, bias: bool) -> None:
        super().__init__()
        self.conv = nn.Conv1d(in_channels, channels, kernel, stride, bias=bias)
        self.flat_weight: Folded[Tensor] = Folded()
        """The kernel (O, K * C) in the memory order of windows of frames; cached while it does not change."""


class FeatureEncoder(nn.Module):
    """The convolutions from waveforms to frames of features."""

    def __init__(self, config: WaveformConfig) -> None:
        super().__init__()
        norm, channels = config.feat_extract_norm, config.conv_dim
        kernels, strides = config.conv_kernel, config.conv_stride
        if norm not in ("group", "layer"):
            raise CheckpointError(f"feat_extract_norm is {norm!r}, expected 'group' or 'layer': correct config.json")
        self.gradient_checkpointing = False
        self.norm, self.kernels, self.strides = norm, kernels, strides
        self.act = activation(config.feat_extract_activation)
        self.receptive = receptive_samples(kernels, strides)
        self.stride = math.prod(strides)
        # Output frames of a chunk on a CPU.
        self.chunk_frames = min(CHUNK_FRAMES * max(1, WIDE_CHANNELS // channels[0]), MAX_CHUNK_FRAMES)
        sizes = zip((1, *channels[:-1]), channels, kernels, strides, strict=True)
        self.conv_layers = nn.ModuleList(ConvLayer(*size, bias=config.conv_bias) for size in sizes)
        if norm == "group":  # over time for each channel
            self.layers[0].layer_norm = nn.GroupNorm(channels[0], channels[0], NORM_EPS)
        else:  # over channels
            for layer, width in zip(self.layers, channels, strict=True):
                layer.layer_norm = nn.LayerNorm(width, NORM_EPS)

    def forward(self, waves_BS: Tensor, layout: Layout) -> Tensor:
        """Return features_BTC, which do not depend on samples after a row's end.

        Frames that extend beyond a row's end are zero or undefined.
        """
        num_samples = waves_BS.shape[1]
        if num_samples < self.receptive:
            raise RuntimeError(f"input has {num_samples} samples, the model needs at least {self.receptive}")
        has_gradients = waves_BS.requires_grad or any(parameter.requires_grad for parameter in self.parameters())
        if has_gradients and torch.is_grad_enabled():
            steps = [self._first(waves_BS, layout.counts_B), *self._products(convolved)]
            return self._frames(waves_BS, steps, self.gradient_checkpointing and self.training)
        by = self._frames_by_chunk if waves_BS.device.type == "cpu" else self._frames_by_batch
        with torch.no_grad():  # a frozen front end in training
            return by(waves_BS, layout)

    @property
    def layers(self) -> list[ConvLayer]:
        """The convolutional layers, from the waveform up."""
        return [layer for layer in self.conv_layers if isinstance(layer, ConvLayer)]

    def _products(self, kind: Callable[[ConvLayer, int], Product]) -> list[Product]:
        """Return the functions of the layers after the first."""
        return [kind(layer, stride) for layer, stride in zip(self.layers[1:], self.strides[1:], strict=True)]

    def _frames_by_chunk(self, waves_BS: Tensor, layout: Layout) -> Tensor:
        num_frames = conv_output_frames(waves_BS.shape[1], self.kernels, self.strides)
        shape = (len(waves_BS), num_frames, self.layers[-1].conv.out_channels)
        features_BTC = self.layers[0].conv.weight.new_zeros(shape)
        products = self._products(window_product)
        for features_TC, wave_S, count in zip(features_BTC, waves_BS, layout.host_lengths, strict=True):
            wave_1S = wave_S[None, :count]
            row_frames = conv_output_frames(wave_1S.shape[1], self.kernels, self.strides)
            if row_frames < 1:
                continue
            steps = [self._first(wave_1S, None), *products]
            for start in range(0, row_frames, self.chunk_frames):
                end = min(start + self.chunk_frames, row_frames)
                chunk_1S = wave_1S[:, start * self.stride : (end - 1) * self.stride + self.receptive]
                chunk_1S = F.pad(chunk_1S, (0, (usual_frames(end - start) - (end - start)) * self.stride))
                features_TC[start:end] = self._frames(chunk_1S, steps)[0, : end - start]
        return features_BTC

    def _frames_by_batch(self, waves_BS: Tensor, layout: Layout) -> Tensor:
        rows = max(1, BATCH_SAMPLES // waves_BS.shape[1])
        counts = [None] * -(-len(waves_BS) // rows) if layout.counts_B is None else torch.split(layout.counts_B, rows)
        batches = zip(torch.split(waves_BS, rows), counts, strict=True)
        products = self._products(strided_product)
        return torch.cat([self._frames(waves, [self._first(waves, count), *products]) for waves, count in batches])

    def _frames(self, waves_BS: Tensor, products: Sequence[Product], recomputes: bool = False) -> Tensor:
        """Return all layers' output; `recomputes` saves only the input of each layer for gradients."""
        x = waves_BS
        for layer, product in zip(self.layers, products, strict=True):
            if recomputes:
                x = checkpoint(self._layer, layer, product, x, use_reentrant=False)
            else:
                x = self._layer(layer, product, x)
        return x

    def _layer(self, layer: ConvLayer, product: Product, x: Tensor) -> Tensor:
        """Return a layer's frames (B, T, C) for the frames of the layer before it, or for waveforms (B, S)."""
        x_BTC = product(x)
        if self.norm == "layer":
            x_BTC = layer.layer_norm(x_BTC)
        return self.act(x_BTC)

    def _first(self, waves_BS: Tensor, num_samples_B: Tensor | None) -> Product:
        """Return the function of the first layer, of waveforms (B, S) or of chunks of them."""
        weight_BCK, bias_B1C = self._first_layer(waves_BS, num_samples_B)

        def product(waves_BS: Tensor) -> Tensor:
            windows_BTK = waves_BS.to(weight_BCK.dtype).unfold(1, self.kernels[0], self.strides[0])
            if len(windows_BTK) == 1:  # of two axes: a device then adds the bias in the product
                return linear(windows_BTK[0], weight_BCK[0], bias_B1C[0, 0], any_rows=True)[None]
            return torch.baddbmm(bias_B1C, windows_BTK, weight_BCK.transpose(1, 2))

        return product

    def _first_layer(self, waves_BS: Tensor, num_samples_B: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return weight_BCK and bias_B1C of the first convolution, with each row's group norm folded in."""
        layer = self.layers[0]
        weight_CK, bias_C = layer.conv.weight[:, 0], layer.conv.bias
        batch = waves_BS.shape[0]
        if self.norm == "layer":
            bias_C = torch.zeros_like(weight_CK[:, 0]) if bias_C is None else bias_C
            return weight_CK.expand(batch, -1, -1), bias_C.expand(batch, 1, -1)
        mean_BK, cov_BKK = self._window_statistics(waves_BS, num_samples_B)
        wide_CK = weight_CK.double()  # the spectrum of speech spans 60 dB: W cov W^T would cancel in float32
        variance_BC = ((wide_CK @ cov_BKK) * wide_CK).sum(-1)
        scale_BC = layer.layer_norm.weight.double() * (variance_BC + NORM_EPS).rsqrt()
        weight_BCK = scale_BC[:, :, None] * wide_CK
        # The convolution's bias shifts the mean by the same amount, and so has no effect.
        bias_BC = layer.layer_norm.bias.double() - (weight_BCK @ mean_BK[:, :, None])[:, :, 0]
        if bias_C is not None:
            bias_BC = bias_BC + 0.0 * bias_C  # distributed training expects a gradient for every parameter
        return weight_BCK.to(weight_CK.dtype), bias_BC[:, None].to(weight_CK.dtype)

    def _window_statistics(self, waves_BS: Tensor, num_samples_B: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return mean_BK and cov_BKK of the first kernel's windows within each row."""
        kernel, stride = self.kernels[0], self.strides[0]
        # The covariance is a difference of two sums, which cancel in float32 for a waveform with an offset.
        windows_BTK = waves_BS.unfold(1, kernel, stride).double()
        num_windows = windows_BTK.shape[1]
        count_B11 = windows_BTK.new_full((1, 1, 1), num_windows)
        if num_samples_B is not None:
            count_B = conv_output_frames(num_samples_B, [kernel], [stride]).clamp(0, num_windows)
            valid_BT = torch.arange(num_windows, device=waves_BS.device) < count_B[:, None]
            windows_BTK = windows_BTK.masked_fill(~valid_BT[:, :, None], 0.0)
            count_B11 = count_B.clamp(min=1)[:, None, None].double()
        mean_B1K = windows_BTK.sum(1, keepdim=True) / count_B11
        product_BKK = windows_BTK.transpose(1, 2) @ windows_BTK / count_B11
        return mean_B1K[:, 0], product_BKK - mean_B1K.transpose(1, 2) * mean_B1K


def convolved(layer: ConvLayer, stride: int) -> Product:
    """Return a convolution along T with gradients; drops the cached kernel, as a weight update follows."""
    layer.flat_weight.clear()
    return lambda x_BTC: strided_convolution(x_BTC, layer.conv.weight, layer.conv.bias, stride)


def window_product(layer: ConvLayer, stride: int) -> Product:
    """Return a convolution along T as one product with overlapping windows, for chunks of one row on a CPU."""
    weight_OCK, bias_O, kernel = layer.conv.weight, layer.conv.bias, layer.conv.kernel_size[0]
    weight_ON = layer.flat_weight((weight_OCK,), lambda: weight_OCK.transpose(1, 2).flatten(1).contiguous())

    def product(x_1TC: Tensor) -> Tensor:
        _, num_frames, channels = x_1TC.shape
        num_outputs = (num_frames - kernel) // stride + 1
        windows_1TN = x_1TC.as_strided((1, num_outputs, kernel * channels), (0, stride * channels, 1))
        return linear(windows_1TN, weight_ON, bias_O, any_rows=True)

    return product


def strided_product(layer: ConvLayer, stride: int) -> Product:
    """Return a convolution along T as a sum of matrix products, without copies.

    `stride` neighbouring frames are contiguous in memory, so a view of them is a matrix. A kernel is split into
    matrices of at most `stride` taps.
    """
    kernel, bias_O = layer.conv.kernel_size[0], layer.conv.bias
    parts = [part.permute(2, 1, 0).flatten(0, 1) for part in torch.split(layer.conv.weight, stride, dim=2)]

    def product(x_BTC: Tensor) -> Tensor:
        batch, num_frames, channels = x_BTC.shape
        num_outputs = (num_frames - kernel) // stride + 1
        strides = (num_frames * channels, stride * channels, 1)
        y_BTO: Tensor | None = None
        for number, part_NO in enumerate(parts):
            offset = x_BTC.storage_offset() + number * stride * channels
            frames_BTN = x_BTC.as_strided((batch, num_outputs, part_NO.shape[0]), strides, offset)
            part_BNO = part_NO.expand(batch, -1, -1)
            if y_BTO is not None:
                y_BTO = y_BTO.baddbmm_(frames_BTN, part_BNO)
            elif bias_O is not None:
                y_BTO = torch.baddbmm(bias_O.expand(batch, 1, -1), frames_BTN, part_BNO)
            else:
                y_BTO = torch.bmm(frames_BTN, part_BNO)
        assert y_BTO is not None  # a kernel has at least one tap
        return y_BTO

    return product
