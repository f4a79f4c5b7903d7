"""Moving average of weights over the updates of a training."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from raysp.training.loop import state

UPDATES = "updates"
"""Name of the number of updates in the state of a moving average."""


class MovingAverage:
    """Exponential moving average of weights, on their device.

    At first it forgets faster, so that the initial weights have no lasting part: by `(1 + n) / (10 + n)` after `n`
    updates, until that exceeds the decay.

    Args:
        weights: weights by name, which the optimiser changes in place, such as `model.stored_weights()`; those that are
            not of a floating-point type are left out.
        decay: share of the average that each update keeps.
    """

    def __init__(self, weights: Mapping[str, Tensor], decay: float) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay is {decay}, expected at least 0 and below 1")
        self.decay = decay
        self.updates = 0
        averaged = {name: weight.detach() for name, weight in weights.items() if weight.is_floating_point()}
        self.names, self._weights = [*averaged], [*averaged.values()]
        self._averages = [weight.clone() for weight in self._weights]

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights after an update."""
        # The decay grows at first, as in TensorFlow's moving average, or the initial weights would stay for long.
        kept = min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(self._averages, self._weights, 1 - kept)
        self.updates += 1

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Set the weights to the average within the block, and restore them after it."""
        own = [weight.clone() for weight in self._weights]
        self._set(self._averages)
        try:
            yield
        finally:
            self._set(own)

    def apply(self) -> None:
        """Set the weights to the average."""
        self._set(self._averages)

    @torch.no_grad()
    def _set(self, values: Sequence[Tensor]) -> None:
        for weight, value in zip(self._weights, values, strict=True):
            weight.copy_(value)

    def state(self) -> dict[str, Tensor]:
        """Return copies of the average and of the number of updates, on the CPU."""
        averages = dict(zip(self.names, self._averages, strict=True))
        return state.copied({**averages, UPDATES: torch.tensor(self.updates)})

    def load(self, file: Path) -> None:
        """Go on from the state in a file.

        Raises:
            RunError: the file has other names or shapes than the weights.
        """
        updates = torch.zeros((), dtype=torch.int64)
        state.load_tensors({**dict(zip(self.names, self._averages, strict=True)), UPDATES: updates}, file)
        self.updates = int(updates)
