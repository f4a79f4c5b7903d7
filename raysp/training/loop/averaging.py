"""Averages of weights: a moving average over the updates of a training, and the mean of committed weights."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from raysp.errors import RunError
from raysp.storage.store import Store
from raysp.training.loop import state
from raysp.training.sink import committed_steps

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


def mean_of(files: Sequence[Path]) -> dict[str, Tensor]:
    """Return the mean of the weights of files, computed in float64, one weight after another.

    Weights that are not of a floating-point type come from the last file.

    Raises:
        RunError: the files have different names or shapes.
    """
    if not files:
        raise ValueError("files is empty, expected at least one")
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(safe_open(file, "pt")) for file in files]
        names = [*opened[-1].keys()]
        for file, content in zip(files, opened, strict=True):
            if {*content.keys()} != {*names}:
                raise RunError(f"{file}: its weights have other names than those of {files[-1]}")
        return {name: _mean(name, [content.get_tensor(name) for content in opened]) for name in names}


def _mean(name: str, tensors: Sequence[Tensor]) -> Tensor:
    if len({tensor.shape for tensor in tensors}) > 1:
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in tensors)
        raise RunError(f"{name} has different shapes in the files: {shapes}")
    last = tensors[-1]
    if not last.is_floating_point():
        return last
    total = torch.zeros(last.shape, dtype=torch.float64)
    for tensor in tensors:
        total += tensor
    return (total / len(tensors)).to(last.dtype)


def mean_of_last(store: Store, number: int, *, name: str, every: int = 1) -> dict[str, Tensor]:
    """Return the mean of the weights of the last committed steps, as `mean_of` does.

    Args:
        store: the sink of the training.
        number: number of steps; fewer if fewer are committed.
        name: file of the steps.
        every: steps between commits, as for `steps.newest`: those between them would make the mean depend on stops.

    Raises:
        RunError: no step is committed, or a file changed.
    """
    last = committed_steps.latest(store)
    if last is None:
        raise RunError(f"{store.url}: no step is committed, so there are no weights to average; train until one is")
    with contextlib.ExitStack() as stack:
        files = [
            stack.enter_context(committed_steps.local_file(store, committed_steps.load(store, done), name))
            for done in committed_steps.newest(store, number, until=last.position.done, every=every)
        ]
        return mean_of(files)
