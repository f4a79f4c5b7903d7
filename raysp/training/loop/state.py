"""State of a training as safetensors files: weights, state of the optimiser, and averaged weights."""

import contextlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from raysp.errors import RunError
from raysp.models.base.modeling import Model
from raysp.storage.store import Store
from raysp.training.loop.averaging import MovingAverage
from raysp.training.sink import committed_steps
from raysp.training.sink.committed_steps import CommittedStep

MODEL, OPTIMIZER, AVERAGE = "model.safetensors", "optimizer.safetensors", "ema.safetensors"
"""Files of a committed step; the last one if there is a moving average."""
SEPARATOR = "|"
"""Separator of the names of a moment and its parameter."""


class TrainingState:
    """Everything that a commit saves: weights, state of the optimiser, and moving average.

    The weights share their memory with the model.

    Args:
        model: the model that is trained.
        optimizer: the optimiser.
        decay: share that the moving average of the weights keeps at each update; None: there is none.
        trained_only: whether weights that are not trained are left out, so that the checkpoint's stay.
    """

    def __init__(
        self,
        model: Model,
        optimizer: torch.optim.Optimizer,
        *,
        decay: float | None = None,
        trained_only: bool = False,
    ) -> None:
        self.optimizer = optimizer
        self.parameters = dict(model.named_parameters())
        self.tensors = {MODEL: weights(model, trained_only=trained_only)}
        self.average = None if decay is None else MovingAverage(self.tensors[MODEL], decay)
        if self.average is not None:
            self.tensors[AVERAGE] = self.average.tensors

    def update(self) -> None:
        """Take in the weights after an update."""
        if self.average is not None:
            self.average.update()

    def evaluated(self) -> contextlib.AbstractContextManager[None]:
        """Return a block in which the model has the weights that are evaluated: their moving average, if any."""
        return contextlib.nullcontext() if self.average is None else self.average.applied()

    def copied(self) -> dict[str, dict[str, Tensor]]:
        """Return copies of the tensors of a commit by the names of their files."""
        copies = {name: copied(tensors) for name, tensors in self.tensors.items()}
        return {**copies, OPTIMIZER: moments(self.optimizer, self.parameters)}

    def load(self, store: Store, step: CommittedStep) -> None:
        """Go on from a committed step."""
        for name in self.tensors:
            self._load(store, step, name)
        with committed_steps.local_file(store, step, OPTIMIZER) as file:
            load_moments(self.optimizer, self.parameters, file)

    def load_result(self, store: Store, step: CommittedStep | None) -> None:
        """Set the weights that a training ends with: of a committed step, or the last; or their moving average.

        Args:
            store: the sink.
            step: the step of the best evaluation; None: the last weights, which are loaded.
        """
        if step is not None:
            self._load(store, step, MODEL if self.average is None else AVERAGE)
        if self.average is not None:
            self.average.apply()

    def _load(self, store: Store, step: CommittedStep, name: str) -> None:
        with committed_steps.local_file(store, step, name) as file:
            load_tensors(self.tensors[name], file)


def weights(model: Model, *, trained_only: bool) -> dict[str, Tensor]:
    """Return the weights that a training commits, which share their memory with the model.

    Args:
        model: the model as its training begins.
        trained_only: whether weights that are not trained are left out, so that the checkpoint's stay.
    """
    # Tied weights have several names, of which any may be the stored one.
    fixed = {name for name, weight in model.named_parameters(remove_duplicate=False) if not weight.requires_grad}
    stored = model.stored_weights()
    return {name: weight for name, weight in stored.items() if not (trained_only and name in fixed)}


@torch.no_grad()
def load_tensors(tensors: Mapping[str, Tensor], file: Path) -> None:
    """Replace the values of tensors by a file's with the same names.

    Raises:
        RunError: the file has other names or shapes.
    """
    values = load_file(file)
    expected = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if (shapes := {name: tuple(tensor.shape) for name, tensor in values.items()}) != expected:
        other = sorted(name for name in {*shapes, *expected} if shapes.get(name) != expected.get(name))
        raise RunError(f"{file}: the weights do not fit the model: {', '.join(other[:5])}")
    for name, tensor in tensors.items():
        tensor.copy_(values[name])


def moments(optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """Return copies of the state of an optimiser of parameters, by their names, on the CPU.

    Raises:
        RunError: a value of the state is not a tensor.
    """
    values = {
        f"{key}{SEPARATOR}{name}": value
        for name, parameter in parameters.items()
        for key, value in optimizer.state.get(parameter, {}).items()
    }
    for name, value in values.items():
        if not isinstance(value, Tensor):
            key, kind = name.partition(SEPARATOR)[0], type(value).__name__
            raise RunError(
                f"schedule.optimizer: found {kind} in its state {key!r}; expected tensors, by which the training could "
                "go on exactly"
            )
    return copied(values)


def load_moments(optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter], file: Path) -> None:
    """Set the state of an optimiser from a file of `moments`.

    Raises:
        RunError: the file has a parameter that the optimiser does not have.
    """
    names = {id(parameter): name for name, parameter in parameters.items()}
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    numbers = {names[id(parameter)]: number for number, parameter in enumerate(trained)}
    states: dict[int, dict[str, Tensor]] = {}
    for full_name, value in load_file(file).items():
        key, _, name = full_name.partition(SEPARATOR)
        if name not in numbers:
            raise RunError(f"{file}: state of {name!r}, which is not trained")
        states.setdefault(numbers[name], {})[key] = value
    # torch knows which values of an optimiser stay on the CPU, such as the number of steps.
    optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})


def copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return copies that later steps do not change, so that a thread may write them."""
    return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
