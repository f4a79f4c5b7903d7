"""Moving average of weights over the updates of a training."""

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

UPDATES = "updates"
"""Name of the number of updates in the state of a moving average."""


class MovingAverage:
    """Exponential moving average of weights, on their device.

    After `n` updates it keeps the share `(1 + n) / (10 + n)`, at most `decay`, as TensorFlow's moving average does. So
    the initial weights lose their influence early.

    Args:
        weights: weights by name, which the optimiser changes in place, such as `model.stored_weights()`; those that are
            not of a floating-point type are left out.
        decay: share of the average that each update keeps.
    """

    def __init__(self, weights: Mapping[str, Tensor], decay: float) -> None:
        self.decay = decay
        averaged = {name: weight.detach() for name, weight in weights.items() if weight.is_floating_point()}
        self._weights = [*averaged.values()]
        self._averages = [weight.clone() for weight in self._weights]
        self.updates = torch.tensor(0)
        self.tensors = {**dict(zip(averaged, self._averages, strict=True)), UPDATES: self.updates}
        """The average by the names of weights, and the number of updates, which change in place."""

    def update(self) -> None:
        """Take in the weights after an update."""
        updates = int(self.updates)
        torch._foreach_lerp_(self._averages, self._weights, 1 - min(self.decay, (1 + updates) / (10 + updates)))
        self.updates += 1

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Set the weights to the average within the block, and restore them after it."""
        own = [weight.clone() for weight in self._weights]
        self.apply()
        try:
            yield
        finally:
            torch._foreach_copy_(self._weights, own)

    def apply(self) -> None:
        """Set the weights to the average."""
        torch._foreach_copy_(self._weights, self._averages)
