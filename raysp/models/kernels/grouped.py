"""Grouped convolutions in bfloat16.

oneDNN 3.12 computes wrong results for forward convolutions with groups of 4 to 15 channels on processors with AMX, with
errors as large as the largest value, and does not end for groups of one channel whose weight is in its own layout on
processors with bfloat16 but without AMX. Wider groups, as in every published checkpoint, are correct.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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
