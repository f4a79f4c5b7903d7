"""What is computed from weights alone, kept while they stay."""

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import torch
from torch import Tensor

Value = TypeVar("Value")


class Folded(Generic[Value]):
    """Keep a value while none of the weights that it comes from changes and none of them asks for a gradient.

    A change is a new place in memory, a write in place, another type or device. Copies and pickles start empty.
    """

    def __init__(self) -> None:
        self._kept: tuple[tuple[object, ...], Value] | None = None

    def __call__(self, weights: Sequence[Tensor], compute: Callable[[], Value]) -> Value:
        """Return what `compute` gives now, or gave for the same weights."""
        needs_gradient = torch.is_grad_enabled() and any(weight.requires_grad for weight in weights)
        if needs_gradient or any(weight.is_inference() for weight in weights):
            return compute()
        state = tuple((weight.data_ptr(), weight._version, weight.dtype, weight.device) for weight in weights)
        if self._kept is None or self._kept[0] != state:
            with torch.inference_mode(False), torch.no_grad():  # what is kept may meet gradients of other weights
                self._kept = (state, compute())
        return self._kept[1]

    def clear(self) -> None:
        """Forget the value."""
        self._kept = None

    def __deepcopy__(self, memo: object) -> "Folded[Value]":
        return type(self)()

    def __getstate__(self) -> dict[str, object]:
        return {"_kept": None}
