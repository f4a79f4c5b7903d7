"""Kernel functions of layers: dense products, activations, dropout, strided and grouped convolutions.

They differ from torch's functions in speed alone. Each calls torch's function where its own reading does not pay.

Legend: B batch, T frames, N taps times channels, M rows, I inputs, O outputs or output channels, Q output frames, C
input channels, K taps.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from raysp.errors import CheckpointError


def _gelu_tanh(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


def _quick_gelu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(1.702 * x)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_fast": _gelu_tanh,
    "gelu_new": _gelu_tanh,
    "gelu_python": F.gelu,  # element-wise operations in the original; one pass over memory instead of five
    "gelu_pytorch_tanh": _gelu_tanh,
    "hardswish": F.hardswish,
    "leaky_relu": F.leaky_relu,
    "linear": nn.Identity(),
    "mish": F.mish,
    "quick_gelu": _quick_gelu,
    "relu": F.relu,
    "relu6": F.relu6,
    "selu": F.selu,
    "sigmoid": torch.sigmoid,
    "silu": F.silu,
    "swish": F.silu,
    "tanh": torch.tanh,
}


def activation(name: str) -> Callable[[Tensor], Tensor]:
    """Return an activation function by its name in a configuration."""
    if name not in ACTIVATIONS:
        raise CheckpointError(f"activation is {name!r}, expected one of {', '.join(ACTIVATIONS)}: correct config.json")
    return ACTIVATIONS[name]


# torch draws a double for each value of a mask on a CPU, 7 ns, which was a tenth of a training step. Masks here are
# drawn by numpy's SFC64, seeded by torch's generator, and kept as bytes for the backward pass, a quarter of the
# memory. On other devices and under autocast the functions of torch are called.
LEVELS = 1 << 16
"""Probabilities are rounded to a multiple of one over this."""


def dropped(x: Tensor, probability: float, training: bool = True) -> Tensor:
    """Return `torch.nn.functional.dropout`: in training zeros with this probability, the other values scaled."""
    if not training or probability == 0.0:
        return x
    if not _draws_bits(x, probability):
        return F.dropout(x, probability)
    threshold, count = round(probability * LEVELS), x.numel()
    seed = int(torch.randint(1 << 62, (), device="cpu"))
    bits = np.random.SFC64(seed).random_raw(-(-count // 4)).view(np.int16)[:count]
    # The bits are read as signed numbers, the kind that torch has, so the threshold moves down by half of the levels.
    kept = (torch.from_numpy(bits) >= threshold - LEVELS // 2).view(x.shape)
    result: Tensor = _Masked.apply(x, kept, LEVELS / (LEVELS - threshold))  # type: ignore[no-untyped-call]
    return result


def attention_with_dropout(
    q_BATD: Tensor,
    k_BATD: Tensor,
    v_BATD: Tensor,
    mask: Tensor | None,
    probability: float,
    scale: float | None = None,
) -> Tensor:
    """Return `torch.nn.functional.scaled_dot_product_attention`.

    Args:
        q_BATD: Queries of B rows, A heads, T frames and D values.
        k_BATD: Keys.
        v_BATD: Values.
        mask: Boolean mask of the attended keys, or bias of the scores, broadcast to (B, A, T, T); None: all keys.
        probability: Share of the weights that dropout sets to zero.
        scale: Factor of the scores; None: `D ** -0.5`.
    """
    if not probability or q_BATD.dtype != torch.float32 or not _draws_bits(q_BATD, probability):
        return F.scaled_dot_product_attention(q_BATD, k_BATD, v_BATD, mask, probability, scale=scale)
    scale = q_BATD.shape[-1] ** -0.5 if scale is None else scale
    scores_BATT = (q_BATD * scale) @ k_BATD.transpose(2, 3)
    if mask is not None:
        scores_BATT = scores_BATT.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores_BATT + mask
    return dropped(scores_BATT.softmax(-1), probability) @ v_BATD


def _draws_bits(x: Tensor, probability: float) -> bool:
    return x.device.type == "cpu" and not torch.is_autocast_enabled("cpu") and 0.0 < probability < 1.0 - 1 / LEVELS


class _Masked(torch.autograd.Function):
    """Product with a mask of booleans and a scale; its gradient is the same product."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kept: Tensor, scale: float) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(kept)
        ctx.scale = scale
        return kept.to(x.dtype).mul_(x).mul_(scale)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
        (kept,) = ctx.saved_tensors
        return _Masked.apply(grad, kept, ctx.scale), None, None  # type: ignore[no-untyped-call]


# oneDNN 3.12 computes wrong results for forward convolutions with groups of 4 to 15 channels on processors with AMX,
# with errors as large as the largest value, and does not end for groups of one channel whose weight is in its own
# layout on processors with bfloat16 but without AMX. Wider groups, as in every published checkpoint, are correct.
MIN_CHANNELS = 16
"""Channels per group from which bfloat16 convolutions on a CPU are correct."""


def conv1d(conv: nn.Conv1d, x_BCT: Tensor) -> Tensor:
    """Apply a grouped layer of stride 1; the result has the dtype of the input."""
    x, weight_OCK, bias = in_safe_precision(x_BCT, conv.weight, conv.bias)
    return F.conv1d(x, weight_OCK, bias, padding=conv.padding[0], groups=conv.groups).to(x_BCT.dtype)


def in_safe_precision(x_BCT: Tensor, weight_OCK: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return the arguments of a grouped convolution, in float32 if bfloat16 would be wrong."""
    if x_BCT.device.type == "cpu" and x_BCT.dtype == torch.bfloat16 and 1 < weight_OCK.shape[1] < MIN_CHANNELS:
        return x_BCT.float(), weight_OCK.float(), None if bias is None else bias.float()
    return x_BCT, weight_OCK, bias


# torch multiplies float32 matrices by MKL, which is slower than oneDNN on processors other than Intel's: 103 against
# 112 GFLOP/s on a core of an AMD Zen 4, 110 against 220 to 255 on a Zen 5. oneDNN also fuses the activation. It caches
# a program of half a megabyte for each number of rows, so it is called only for recurring numbers: of `filled`, or a
# few of the caller's.
FUSED = {"relu": "relu", "silu": "swish", "swish": "swish"}
"""Activations by their names in configurations and in oneDNN."""

FEW_ROWS = 32


def filled(num_rows: int) -> int:
    """Round up to a number of rows that oneDNN is called with: at most 31 more, or a thirtieth."""
    step = max(FEW_ROWS, 1 << max(0, num_rows.bit_length() - 6))
    return -(-num_rows // step) * step


def linear(
    x: Tensor, weight_OI: Tensor, bias_O: Tensor | None = None, act: str = "linear", *, any_rows: bool = False
) -> Tensor:
    """Return `act(x weight^T + bias)` for x (..., I); `act` is the name of an activation.

    `any_rows` allows oneDNN for any number of rows, for callers with few different numbers.
    """
    num_rows = x.shape[:-1].numel()
    suits_onednn = (
        _HAS_ONEDNN
        and num_rows > 0
        and is_inference_on_cpu(x, weight_OI)
        and (any_rows or num_rows == filled(num_rows))
        and weight_OI.is_contiguous()  # a hundred times slower otherwise
    )
    if not suits_onednn:
        return activation(act)(F.linear(x, weight_OI, bias_O))
    y: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight_OI, bias_O, FUSED.get(act, "none"), [], "")
    return y if act in FUSED else activation(act)(y)


def dense(module: nn.Module, x: Tensor, act: str = "linear") -> Tensor:
    """Apply a dense layer and an activation; calls modules other than plain `nn.Linear`."""
    if type(module) is nn.Linear:
        return linear(x, module.weight, module.bias, act)
    return activation(act)(module(x))


def few_rows(x: Tensor, weight_OI: Tensor, bias_O: Tensor | None = None) -> Tensor:
    """Return `x weight^T + bias` for x (..., I) of a few rows, whose number changes from call to call.

    On a CPU the rows are padded with zeros to one of a few sizes, because oneDNN caches a kernel for each size.
    """
    if not is_inference_on_cpu(x, weight_OI):
        return linear(x, weight_OI, bias_O)
    x_MI = x.reshape(-1, x.shape[-1])
    num_rows = len(x_MI)
    size = -(-num_rows // 8) * 8 if num_rows > 8 else 1 << max(0, num_rows - 1).bit_length()
    y_MO = linear(F.pad(x_MI, (0, 0, 0, size - num_rows)), weight_OI, bias_O, any_rows=True)[:num_rows]
    return y_MO.view(*x.shape[:-1], len(weight_OI))


def has_bfloat16_products(dtype: torch.dtype) -> bool:
    """Return whether a type is bfloat16, and the processor multiplies it faster than float32."""
    return dtype == torch.bfloat16 and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def is_inference_on_cpu(x: Tensor, weight_OI: Tensor, dtype: torch.dtype = torch.float32) -> bool:
    """Return whether a product is of a type on a CPU, outside training and autocast, as oneDNN requires."""
    return (
        x.dtype == dtype
        and x.device.type == "cpu"
        and x.dtype == weight_OI.dtype
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
    )


_HAS_ONEDNN = (
    torch._C.has_mkl  # x86; torch has other kernels elsewhere
    and torch._C._has_mkldnn
    and hasattr(torch.ops.mkldnn, "_linear_pointwise")
)


# oneDNN computes the gradients of a convolution with channels last at half its speed or less: on one core with
# AVX-512, forward and backward of 4 rows of 16,437 frames of 512 channels take 1.1 s here, 2.5 s with it, and 1.7 s
# with channels first.
def strided_convolution(x_BTC: Tensor, weight_OCK: Tensor, bias_O: Tensor | None, stride: int) -> Tensor:
    """Return a convolution along T without padding, (B, Q, O), with gradients.

    Args:
        x_BTC: frames.
        weight_OCK: kernel.
        bias_O: bias; None: there is none.
        stride: stride in frames.
    """
    is_half = torch.is_autocast_enabled(x_BTC.device.type) or x_BTC.dtype != torch.float32
    if is_half or x_BTC.device.type != "cpu":
        return _convolution(x_BTC, weight_OCK, bias_O, stride)
    y_BQO: Tensor = _Convolution.apply(x_BTC, weight_OCK, bias_O, stride)  # type: ignore[no-untyped-call]
    return y_BQO


def _convolution(x_BTC: Tensor, weight_OCK: Tensor, bias_O: Tensor | None, stride: int) -> Tensor:
    x_BCT = x_BTC.transpose(1, 2)
    if x_BTC.device.type == "cpu":  # 2d kernels take channels last there; 1d kernels copy x and gradients
        return F.conv2d(x_BCT[:, :, None], weight_OCK[:, :, None], bias_O, (1, stride))[:, :, 0].transpose(1, 2)
    return F.conv1d(x_BCT, weight_OCK, bias_O, stride).transpose(1, 2)


class _Convolution(torch.autograd.Function):
    """Convolution whose backward pass splits the kernel into parts of at most `stride` taps.

    The frames under a part do not overlap from one output frame to the next, so that they are a matrix in place.
    """

    @staticmethod
    def forward(ctx: Any, x_BTC: Tensor, weight_OCK: Tensor, bias_O: Tensor | None, stride: int) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(x_BTC, weight_OCK)
        ctx.stride = stride
        return _convolution(x_BTC, weight_OCK, bias_O, stride)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BQO: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
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
                part_ON = x_BTC.new_zeros(grad_BQO.shape[2], (taps.stop - taps.start) * x_BTC.shape[2])
                for x_TC, grad_QO in zip(x_BTC, grad_BQO, strict=True):
                    part_ON.addmm_(grad_QO.t(), _matrix(x_TC, taps, len(grad_QO), ctx.stride))
                grad_OKC[:, taps] = part_ON.view(len(part_ON), -1, x_BTC.shape[2])
        grad_OCK = grad_OKC.transpose(1, 2) if grad_OKC is not None else None
        return grad_BTC, grad_OCK, grad_BQO.sum((0, 1)) if needs_bias else None, None


def _matrix(frames_TC: Tensor, taps: slice, num_rows: int, stride: int) -> Tensor:
    """Return the frames under some taps for each output frame, a view (Q, N) of contiguous frames."""
    channels = frames_TC.shape[1]
    offset = frames_TC.storage_offset() + taps.start * channels
    return frames_TC.as_strided((num_rows, (taps.stop - taps.start) * channels), (stride * channels, 1), offset)


def is_known_to_be_full(valid_BT: Tensor) -> bool:
    """Return whether a mask has no zeros; False if unknown, on a GPU."""
    return valid_BT.device.type == "cpu" and bool(valid_BT.all())
