"""Linear layers of one input as one product: a step of a text decoder on a device has fewer launches.

Legend: R rows, L tokens of each, I inputs, O outputs of all layers.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raysp.devices import is_accelerator
from raysp.models.kernels.folded import Folded
from raysp.models.kernels.hooks import has_hooks
from raysp.models.kernels.packed import StepLinear


class JoinedProduct(nn.Module):
    """Product with the weights of several layers end to end, of which it caches a copy."""

    def __init__(self) -> None:
        super().__init__()
        self._joined: Folded[tuple[Tensor, Tensor | None]] = Folded()

    def __call__(self, x_RLI: Tensor, layers: Sequence[nn.Linear]) -> Tensor | None:
        """Return the outputs (R, L, O) of the layers, end to end.

        None where they are to be called one by one: on a CPU, for several tokens of each text, outside inference, and
        if a layer is not a plain one of the type of x.
        """
        if not (is_accelerator(x_RLI.device) and x_RLI.shape[1] == 1 and _are_plain(x_RLI, layers)):
            return None
        weights: list[Tensor] = [one.weight for one in layers]
        given: list[Tensor | None] = [one.bias for one in layers]
        biases = [one for one in given if one is not None]

        def join() -> tuple[Tensor, Tensor | None]:
            return torch.cat(weights), torch.cat(biases) if biases else None

        return F.linear(x_RLI, *self._joined([*weights, *biases], join))


def _are_plain(x_RLI: Tensor, layers: Sequence[nn.Linear]) -> bool:
    """Return whether the layers do no more than their product, in inference, and whether their copy can be cached."""
    if torch.is_grad_enabled() or torch.compiler.is_compiling() or torch.is_autocast_enabled(x_RLI.device.type):
        return False
    are_ours = all(type(one) is StepLinear and not has_hooks(one) for one in layers)  # not those of LoRA
    kinds = {(one.bias is None, one.weight.dtype, one.weight.is_inference()) for one in layers}
    return are_ours and kinds in ({(True, x_RLI.dtype, False)}, {(False, x_RLI.dtype, False)})
