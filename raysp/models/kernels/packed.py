"""Linear layers of text decoders, fast where each text brings one row: a step of `generate` on a CPU.

Such a product does little but read the weight. oneDNN reads it 1.5 to 3 times as fast once it lies in blocks of its own
choice, so that a second copy of the weight is kept in that layout: made by the first step, given up when the weight
changes. Everything else (a single row, training, other devices and types) is the plain product.

Legend: R rows, L tokens of each, I width before, O width behind.
"""

from collections.abc import Callable
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raysp.models.kernels.dense import is_inference_on_cpu
from raysp.models.kernels.folded import Folded


class PackedProduct(nn.Module):
    """Multiply by a weight; keeps its packed copy."""

    def __init__(self) -> None:
        super().__init__()
        self._packed: Folded[Tensor] = Folded()

    def __call__(self, x_RLI: Tensor, weight_OI: Tensor, bias: Tensor | None) -> Tensor:
        """Return what `torch.nn.functional.linear` does, of (R, L, I) or (R, I)."""
        if not _is_step(x_RLI, weight_OI):
            if torch.is_grad_enabled() and not torch.compiler.is_compiling():
                self._packed.clear()  # gradients are followed by writes
            return F.linear(x_RLI, weight_OI, bias)
        pack: Callable[[], Tensor] = lambda: torch.ops.mkldnn._reorder_linear_weight(weight_OI.contiguous())  # noqa: E731
        packed = self._packed((weight_OI,), pack)
        product: Tensor = torch.ops.mkldnn._linear_pointwise(x_RLI, packed, bias, "none", [], "")
        return product


class StepLinear(nn.Linear):
    """A linear layer of a text decoder."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__(in_features, out_features, bias)
        self._product = PackedProduct()

    def forward(self, input: Tensor) -> Tensor:
        """Return (..., O) of (..., I)."""
        return self._product(input, self.weight, self.bias)


def _is_step(x_RLI: Tensor, weight_OI: Tensor) -> bool:
    """Tell whether each of several texts brings one row, and nothing stands against packing."""
    if torch.compiler.is_compiling():  # the number of texts stays open
        return False
    one_row_each = (x_RLI.dim() == 2 or (x_RLI.dim() == 3 and x_RLI.shape[1] == 1)) and len(x_RLI) > 1
    return (
        one_row_each
        and is_inference_on_cpu(x_RLI, weight_OI)
        and not weight_OI.is_inference()  # nothing would tell when it changes
        and _can_pack()
    )


@cache
def _can_pack() -> bool:
    """Tell whether torch has oneDNN and the two operators, which `torch.compile` uses for the same end."""
    operators = ("_reorder_linear_weight", "_linear_pointwise")
    has_library = bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
    return has_library and all(hasattr(torch.ops.mkldnn, name) for name in operators)
