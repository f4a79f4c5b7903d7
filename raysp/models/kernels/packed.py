"""Linear layers of text decoders, fast for one row per text: a step of `generate` on a CPU.

Such a product mostly reads the weight. oneDNN reads it 1.5 to 3 times faster in its own blocked layout, so a second
copy of the weight is cached in that layout: packed at the first step, dropped when the weight changes. So it is in
float32, and in bfloat16 where the processor has its products. All other cases (a single row, training, other devices
and types) use the plain product.

Legend: R rows, L tokens of each, I inputs, O outputs.
"""

from collections.abc import Callable
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raysp.models.kernels.dense import has_bfloat16_products, is_inference_on_cpu
from raysp.models.kernels.folded import Folded


class PackedProduct(nn.Module):
    """Product with a weight; caches its packed copy."""

    def __init__(self) -> None:
        super().__init__()
        self._packed: Folded[Tensor] = Folded()

    def __call__(self, x_RLI: Tensor, weight_OI: Tensor, bias: Tensor | None) -> Tensor:
        """Return `torch.nn.functional.linear` of (R, L, I) or (R, I)."""
        if not _is_step(x_RLI, weight_OI):
            if torch.is_grad_enabled() and not torch.compiler.is_compiling():
                self._packed.clear()  # an update of the weight follows gradients
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
        """Return (..., O) for (..., I)."""
        return self._product(input, self.weight, self.bias)


def _is_step(x_RLI: Tensor, weight_OI: Tensor) -> bool:
    """Return whether each of several texts has one row, and the weight can be packed."""
    if torch.compiler.is_compiling():  # the number of texts stays open
        return False
    dtype = x_RLI.dtype if has_bfloat16_products(x_RLI.dtype) else torch.float32
    is_one_row_each = (x_RLI.dim() == 2 or (x_RLI.dim() == 3 and x_RLI.shape[1] == 1)) and len(x_RLI) > 1
    return (
        is_one_row_each
        and is_inference_on_cpu(x_RLI, weight_OI, dtype)
        and not weight_OI.is_inference()  # its changes could not be detected
        and _can_pack()
    )


@cache
def _can_pack() -> bool:
    """Return whether torch has oneDNN and the two operators, which `torch.compile` uses for the same purpose."""
    operators = ("_reorder_linear_weight", "_linear_pointwise")
    has_library = bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
    return has_library and all(hasattr(torch.ops.mkldnn, name) for name in operators)
