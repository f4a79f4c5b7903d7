"""Dense layers by the fastest matrix product of a CPU.

torch multiplies float32 matrices by MKL, which is slower than oneDNN on processors other than Intel's: 103 against 112
GFLOP/s on a core of an AMD Zen 4, 110 against 220 to 255 on a Zen 5. oneDNN also fuses the activation. It caches a
program of half a megabyte for each number of rows, so it is called for numbers that recur: those of `filled`, or a few
of the caller's.

Legend: M rows, I inputs, O outputs.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raysp.models.kernels.activations import activation
from raysp.models.kernels.hooks import has_hooks

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
    if not _suits_onednn(x, weight_OI, any_rows):
        return activation(act)(F.linear(x, weight_OI, bias_O))
    y: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight_OI, bias_O, FUSED.get(act, "none"), [], "")
    return y if act in FUSED else activation(act)(y)


def dense(module: nn.Module, x: Tensor, act: str = "linear") -> Tensor:
    """Apply a dense layer and an activation; calls modules other than plain `nn.Linear` and those with hooks."""
    if type(module) is nn.Linear and not has_hooks(module):
        return linear(x, module.weight, module.bias, act)
    return activation(act)(module(x))


def few_rows(x: Tensor, weight_OI: Tensor, bias_O: Tensor | None = None) -> Tensor:
    """Return `x weight^T + bias` for x (..., I) of a few rows, whose number changes from call to call.

    On a CPU zeros fill them up to one of few numbers, for oneDNN.
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
        and not torch.compiler.is_compiling()  # the compiler chooses kernels
        and x.device.type == "cpu"
        and x.dtype == weight_OI.dtype
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
    )


def _suits_onednn(x: Tensor, weight_OI: Tensor, any_rows: bool) -> bool:
    if not is_inference_on_cpu(x, weight_OI):
        return False
    num_rows = x.shape[:-1].numel()
    return (
        num_rows > 0
        and (any_rows or num_rows == filled(num_rows))
        and weight_OI.is_contiguous()  # a hundred times slower otherwise
        and _HAS_ONEDNN
    )


_HAS_ONEDNN = (
    torch._C.has_mkl  # x86; torch has other kernels elsewhere
    and torch._C._has_mkldnn
    and hasattr(torch.ops.mkldnn, "_linear_pointwise")
)
