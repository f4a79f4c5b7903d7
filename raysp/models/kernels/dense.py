"""Dense layers by whichever product of matrices a CPU is fastest at.

torch multiplies float32 matrices by MKL, which takes slower kernels than oneDNN on processors that are not Intel's: 103
against 112 GFLOP/s on a core of an AMD Zen 4, 110 against 220 to 255 on a Zen 5. oneDNN also applies an activation to
what it made while that is in the cache. It keeps a program of half a megabyte for each number of rows, and is therefore
given numbers that recur: those that `filled` gives, or a caller's own few.

Legend: M rows, I inputs, O outputs.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raysp.models.kernels.activations import activation

FUSED = {"relu": "relu", "silu": "swish", "swish": "swish"}
"""Activations by their names in configurations and in oneDNN."""

FEW_ROWS = 32


def filled(num_rows: int) -> int:
    """Return the next number of rows that oneDNN is given: 31 more, or a thirtieth, at most."""
    step = max(FEW_ROWS, 1 << max(0, num_rows.bit_length() - 6))
    return -(-num_rows // step) * step


def linear(
    x: Tensor, weight_OI: Tensor, bias_O: Tensor | None = None, act: str = "linear", *, any_rows: bool = False
) -> Tensor:
    """Return `act(x weight^T + bias)`, `act` being a name of an activation, for x (..., I).

    `any_rows` calls oneDNN whatever the number of rows, for callers who have few different ones.
    """
    if not _suits_onednn(x, weight_OI, any_rows):
        return activation(act)(F.linear(x, weight_OI, bias_O))
    y: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight_OI, bias_O, FUSED.get(act, "none"), [], "")
    return y if act in FUSED else activation(act)(y)


def dense(module: nn.Module, x: Tensor, act: str = "linear") -> Tensor:
    """Apply a dense layer and an activation; a module put in a layer's place, or observed by hooks, is called."""
    if type(module) is nn.Linear and not module._forward_hooks and not module._forward_pre_hooks:
        return linear(x, module.weight, module.bias, act)
    return activation(act)(module(x))


def is_inference_on_cpu(x: Tensor, weight_OI: Tensor) -> bool:
    """Tell whether a product is one of float32 on a CPU, outside training and autocast: what oneDNN is called for."""
    return (
        not torch.compiler.is_compiling()  # a compiler chooses its kernels itself
        and x.device.type == "cpu"
        and x.dtype == weight_OI.dtype == torch.float32
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
        and weight_OI.is_contiguous()  # or it takes a hundred times as long
        and _HAS_ONEDNN
    )


_HAS_ONEDNN = (
    torch._C.has_mkl  # an x86; elsewhere torch has other kernels
    and torch._C._has_mkldnn
    and hasattr(torch.ops.mkldnn, "_linear_pointwise")
)
