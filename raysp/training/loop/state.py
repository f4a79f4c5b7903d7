"""State of a training as safetensors files: weights, state of the optimiser, and averaged weights."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from raysp.errors import RunError
from raysp.models.base.modeling import Model
from raysp.models.base.weights import write_safetensors
from raysp.storage.store import explain
from raysp.training.loop.optimizing import Group

SEPARATOR = "|"
"""Separator of the names of a moment and its parameter."""


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


def moments(optimizer: torch.optim.Optimizer, groups: Sequence[Group]) -> dict[str, Tensor]:
    """Return copies of the state of an optimiser over groups, by the names of parameters, on the CPU.

    Raises:
        RunError: a value of the state is not a tensor.
    """
    values = {
        f"{key}{SEPARATOR}{name}": value
        for name, parameter in _named(groups)
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


def load_moments(optimizer: torch.optim.Optimizer, groups: Sequence[Group], file: Path) -> None:
    """Set the state of an optimiser from a file of `moments`.

    Raises:
        RunError: the file has a parameter that the optimiser does not have.
    """
    numbers = {name: number for number, (name, _) in enumerate(_named(groups))}
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


def write(tensors: Mapping[str, Tensor], file: Path) -> None:
    """Write tensors to a file.

    Raises:
        StoreError: it cannot be written, such as on a full disk.
    """
    try:
        write_safetensors(file, tensors)
    except OSError as error:
        raise explain(error, "write", file) from error


def _named(groups: Sequence[Group]) -> list[tuple[str, nn.Parameter]]:
    return [pair for group in groups for pair in zip(group.names, group.parameters, strict=True)]
