"""Parameters of an optimiser: groups with rates of their own, and gradients in one flat buffer."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from raysp.models.base.modeling import Model

_LAYER = re.compile(r"(?:^|\.)layers\.(\d+)\.")


@dataclass(frozen=True)
class Group:
    """Parameters with the same learning rate and weight decay."""

    names: tuple[str, ...]
    parameters: tuple[nn.Parameter, ...]
    rate: float
    """Factor of the learning rate."""
    decays: bool
    """Whether weight decay applies."""


def group_parameters(model: Model, *, head_rate: float = 1.0, layer_decay: float = 1.0) -> list[Group]:
    """Group the parameters of a model that are trained.

    Weights of the head, those outside the base model, have a rate of their own. The rate of the base model's layers
    falls from the last to the first by a factor each; what is below the first layer has one factor more. Weight decay
    applies to matrices, not to vectors such as biases and weights of normalisation.

    Args:
        model: the model.
        head_rate: factor of the head's rate.
        layer_decay: factor of a layer's rate to that of the next layer.
    """
    base = {id(parameter) for parameter in model.base_model.parameters()} if model.base_model is not model else set()
    num_layers = 1 + max((_layer(name) for name, _ in model.named_parameters()), default=-1)
    found: dict[tuple[float, bool], list[tuple[str, nn.Parameter]]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        is_head = id(parameter) not in base and bool(base)
        rate = head_rate if is_head else layer_decay ** (num_layers - 1 - _layer(name))
        found.setdefault((rate, parameter.ndim > 1), []).append((name, parameter))
    return [
        Group(tuple(name for name, _ in members), tuple(one for _, one in members), rate, decays)
        for (rate, decays), members in found.items()
    ]


def _layer(name: str) -> int:
    """Return the number of the layer that a parameter belongs to; -1 below the first."""
    match = _LAYER.search(name)
    return int(match[1]) if match else -1


def adamw(groups: Sequence[Group], *, learning_rate: float, weight_decay: float) -> torch.optim.AdamW:
    """Return an AdamW (Loshchilov and Hutter 2019) over groups; `set_rate` changes its learning rates."""
    options = [
        {"params": [*group.parameters], "rate": group.rate, "weight_decay": weight_decay if group.decays else 0.0}
        for group in groups
    ]
    return torch.optim.AdamW(options, lr=learning_rate, betas=(0.9, 0.98), eps=1e-8)


def set_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Set the learning rate of each group, multiplied by its own factor."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group["rate"]


class FlatGradients:
    """Gradients of parameters in one buffer, so that one all-reduce adds those of all workers.

    Parameters that take no part in a pass have zeros, on all workers alike.

    Args:
        parameters: the parameters; their `grad` becomes a view of the buffer.
        num_sums: further numbers that are added with the gradients.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], num_sums: int) -> None:
        self.parameters = [*parameters]
        size = sum(parameter.numel() for parameter in self.parameters)
        first = self.parameters[0]
        self.buffer = torch.zeros(size + num_sums, dtype=torch.float32, device=first.device)
        self.gradients, self.sums = self.buffer[:size], self.buffer[size:]
        place = 0
        for parameter in self.parameters:
            end = place + parameter.numel()
            parameter.grad = self.buffer[place:end].view_as(parameter)
            place = end

    def zero(self) -> None:
        """Set all gradients and sums to zero."""
        self.buffer.zero_()

    def clip(self, most: float | None) -> Tensor:
        """Scale the gradients to a norm of at most `most`, and return their norm before."""
        norm: Tensor = torch.linalg.vector_norm(self.gradients)
        if most is not None:
            self.gradients.mul_((most / (norm + 1e-6)).clamp(max=1.0))
        return norm
