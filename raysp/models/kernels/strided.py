"""Strided convolution of frames, channels last, whose gradients on CPUs are products with views of the frames.

oneDNN computes the gradients of a convolution with channels last at half its speed or less: on one core with AVX-512,
forward and backward of 4 rows of 16,437 frames of 512 channels take 1.1 s here, 2.5 s with it, and 1.7 s with channels
first.

Legend: B batch, T input frames, Q output frames, C input channels, O output channels, K taps, N taps times channels.
"""

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


def strided_convolution(x_BTC: Tensor, weight_OCK: Tensor, bias_O: Tensor | None, stride: int) -> Tensor:
    """Return a convolution along T without padding, (B, Q, O), with gradients.

    Args:
        x_BTC: frames.
        weight_OCK: kernel.
        bias_O: bias; None: there is none.
        stride: stride in frames.
    """
    is_half = torch.is_autocast_enabled(x_BTC.device.type) or x_BTC.dtype != torch.float32
    if is_half or x_BTC.device.type != "cpu" or torch.compiler.is_compiling():
        return _convolution(x_BTC, weight_OCK, bias_O, stride)
    y_BQO: Tensor = _Convolution.apply(x_BTC, weight_OCK, bias_O, stride)  # type: ignore[no-untyped-call]
    return y_BQO


def _convolution(x_BTC: Tensor, weight_OCK: Tensor, bias_O: Tensor | None, stride: int) -> Tensor:
    x_BCT = x_BTC.transpose(1, 2)
    if x_BTC.device.type == "cpu":  # 2d kernels take channels last there; 1d ones copy x and gradients
        return F.conv2d(x_BCT[:, :, None], weight_OCK[:, :, None], bias_O, (1, stride))[:, :, 0].transpose(1, 2)
    return F.conv1d(x_BCT, weight_OCK, bias_O, stride).transpose(1, 2)


class _Context(Protocol):
    """Values that the forward pass saves for the backward pass."""

    stride: int
    saved_tensors: tuple[Tensor, Tensor]
    needs_input_grad: tuple[bool, bool, bool, bool]

    def save_for_backward(self, *tensors: Tensor) -> None: ...


class _Convolution(torch.autograd.Function):
    """Convolution whose backward pass splits the kernel into parts of at most `stride` taps.

    The frames under a part do not overlap from one output frame to the next, so that they are a matrix in place.
    """

    @staticmethod
    def forward(ctx: "_Context", x_BTC: Tensor, weight_OCK: Tensor, bias_O: Tensor | None, stride: int) -> Tensor:
        ctx.save_for_backward(x_BTC, weight_OCK)
        ctx.stride = stride
        return _convolution(x_BTC, weight_OCK, bias_O, stride)

    @staticmethod
    @once_differentiable
    def backward(ctx: "_Context", grad_BQO: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x_BTC, weight_OCK = ctx.saved_tensors
        needs_x, needs_weight, needs_bias, _ = ctx.needs_input_grad
        x_BTC, grad_BQO = x_BTC.contiguous(), grad_BQO.contiguous()
        grad_BTC = torch.zeros_like(x_BTC) if needs_x else None
        grad_OKC = weight_OCK.new_empty(weight_OCK.transpose(1, 2).shape) if needs_weight else None
        num_taps = weight_OCK.shape[2]
        for first in range(0, num_taps, ctx.stride):
            taps = slice(first, min(first + ctx.stride, num_taps))
            if grad_BTC is not None:
                part_ON = weight_OCK[:, :, taps].transpose(1, 2).flatten(1)
                for grad_QO, grad_TC in zip(grad_BQO, grad_BTC, strict=True):
                    _matrix(grad_TC, taps, len(grad_QO), ctx.stride).addmm_(grad_QO, part_ON)
            if grad_OKC is not None:
                grad_OKC[:, taps] = _weight_gradient(x_BTC, grad_BQO, taps, ctx.stride)
        grad_OCK = grad_OKC.transpose(1, 2) if grad_OKC is not None else None
        return grad_BTC, grad_OCK, grad_BQO.sum((0, 1)) if needs_bias else None, None


def _weight_gradient(x_BTC: Tensor, grad_BQO: Tensor, taps: slice, stride: int) -> Tensor:
    """Return the gradient of some taps of the kernel, (O, taps, C)."""
    _, num_frames, num_outputs = grad_BQO.shape
    channels = x_BTC.shape[2]
    total_ON = x_BTC.new_zeros(num_outputs, (taps.stop - taps.start) * channels)
    for x_TC, grad_QO in zip(x_BTC, grad_BQO, strict=True):
        total_ON.addmm_(grad_QO.t(), _matrix(x_TC, taps, num_frames, stride))
    return total_ON.view(num_outputs, -1, channels)


def _matrix(frames_TC: Tensor, taps: slice, num_rows: int, stride: int) -> Tensor:
    """Return the frames under some taps for each output frame, a view (Q, N) of contiguous frames."""
    channels = frames_TC.shape[1]
    offset = frames_TC.storage_offset() + taps.start * channels
    return frames_TC.as_strided((num_rows, (taps.stop - taps.start) * channels), (stride * channels, 1), offset)
