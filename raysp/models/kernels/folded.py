"""Cache of values derived from weights; invalidated when they change.

Writes through `.data` and fused optimizers do not change a tensor's version. A cache is therefore a module without
weights, which `train()`, `eval()`, `load_state_dict()`, `to()` and `half()` of its parent modules reach.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Generic, NamedTuple, Self, TypeVar

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

Value = TypeVar("Value")


class Source(NamedTuple):
    """Identity and version of a weight from which a value was derived."""

    weight: Tensor
    """An alias, which keeps its memory from being reused."""
    version: int

    @classmethod
    def of(cls, weight: Tensor) -> Self:
        """Record a weight."""
        return cls(weight.detach(), weight._version)

    def matches(self, weight: Tensor) -> bool:
        """Return whether a weight is this one and its version unchanged."""
        kept = self.weight
        return (kept.data_ptr(), self.version, kept.dtype, kept.device) == (
            weight.data_ptr(),
            weight._version,
            weight.dtype,
            weight.device,
        )


class Kept(NamedTuple, Generic[Value]):
    """A value, the weights that it was derived from, and the number of optimizer steps until then."""

    value: Value
    sources: list[Source]
    num_steps: int


class Folded(nn.Module, Generic[Value]):
    """Cache of a value derived from weights, while they are unchanged and none requires a gradient.

    The value is recomputed after a forward pass with gradients, a step of any optimizer, `train()`, `eval()`, loading,
    a move or conversion, a write in place and an assigned weight. A write through `.data` during evaluation is not
    detected: call `eval()` after it. Copies and pickles start empty.
    """

    def __init__(self) -> None:
        super().__init__()
        self._kept: Kept[Value] | None = None

    def __call__(self, weights: Sequence[Tensor], compute: Callable[[], Value]) -> Value:
        """Return the cached result of `compute`, or call it if the weights have changed.

        Programs of `torch.compile` and `torch.export` do not cache: weights are their inputs.
        """
        if torch.compiler.is_compiling():
            return compute()
        if any(weight.is_meta for weight in weights):  # convolutions of torch read undefined memory for them
            raise RuntimeError("weights are on the device meta, expected on that of the input: do not offload them")
        if torch.is_grad_enabled() and any(weight.requires_grad for weight in weights):
            self.clear()  # an update of the weights follows gradients
            return compute()
        if any(weight.is_inference() for weight in weights):
            return compute()
        kept = self._kept
        if kept is None or not _is_fresh(kept, weights):
            kept = self._kept = self._derived(weights, compute)
        return kept.value

    def clear(self) -> None:
        """Drop the value."""
        self._kept = None

    def train(self, mode: bool = True) -> Self:
        """Drop the value: weights may change between the two modes."""
        self.clear()
        return super().train(mode)

    def _derived(self, weights: Sequence[Tensor], compute: Callable[[], Value]) -> Kept[Value]:
        sources, num_steps = [Source.of(weight) for weight in weights], _optimizer_steps().so_far
        with torch.inference_mode(False), torch.no_grad():  # the value may be used where other weights have gradients
            return Kept(compute(), sources, num_steps)

    def _apply(self, *args: Any, **kwargs: Any) -> Self:  # noqa: ANN401 - as the base's
        self.clear()
        super()._apply(*args, **kwargs)  # type: ignore[no-untyped-call]
        return self

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - as the base's
        self.clear()
        super()._load_from_state_dict(*args, **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": None}


def _is_fresh(kept: Kept[Any], weights: Sequence[Tensor]) -> bool:
    are_same = all(source.matches(weight) for source, weight in zip(kept.sources, weights, strict=True))
    return are_same and kept.num_steps == _optimizer_steps().so_far


class OptimizerSteps:
    """Number of steps of all optimizers in this process: fused ones do not change a weight's version."""

    def __init__(self) -> None:
        self.so_far = 0

    def count(self, *_: object) -> None:
        """Count a step; called as a hook of optimizers."""
        self.so_far += 1


@cache
def _optimizer_steps() -> OptimizerSteps:
    steps = OptimizerSteps()
    register_optimizer_step_post_hook(steps.count)
    return steps
