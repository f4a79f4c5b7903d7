"""Activation functions by their names in configurations."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from raysp.errors import CheckpointError


def _gelu_tanh(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


def _quick_gelu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(1.702 * x)


def _identity(x: Tensor) -> Tensor:
    return x


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_fast": _gelu_tanh,
    "gelu_new": _gelu_tanh,
    "gelu_python": F.gelu,  # element-wise operations in the original; one pass over memory instead of five
    "gelu_pytorch_tanh": _gelu_tanh,
    "hardswish": F.hardswish,
    "leaky_relu": F.leaky_relu,
    "linear": _identity,
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
