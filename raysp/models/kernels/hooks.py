"""Hooks of modules: fast paths compute with the weights of a module in place of a call, unless it has hooks."""

import torch
from torch import nn
from torch.nn.modules import module as every_module


def has_hooks(module: nn.Module) -> bool:
    """Return whether a call of the module runs more than its class's `forward`.

    Hooks of the module, forward or backward, hooks of all modules, or a `forward` that takes the place of its own, as
    accelerate sets it to fetch weights.
    """
    return bool(
        "forward" in vars(module)
        or module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or (not torch.compiler.is_compiling() and _are_global())
    )


def _are_global() -> bool:
    return bool(every_module._has_any_global_hook())  # type: ignore[no-untyped-call]
