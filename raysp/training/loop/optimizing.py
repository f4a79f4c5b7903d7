"""Parameters of an optimiser: groups with rates of their own, and gradients in one flat buffer."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from raysp.models.base.modeling import Model
from raysp.models.decoder.text_decoder import TextDecoder
from raysp.models.encoder.speech_model import EncoderModel
from raysp.training.objectives.starting_model import head_names
from raysp.training.planning.optimizers import optimizer_arguments, optimizer_class
from raysp.training.specs.recipe import ADAMW, OptionValue

_NO_OPTIONS: Mapping[str, OptionValue] = {}


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

    Weights of the head have their own rate: weights outside the base model, or, of an encoder-decoder, weights that
    no checkpoint had, such as new cross attention. The rates of layers fall from the last to the first by a factor
    each; weights below the first layer have one more factor. Weight decay applies to matrices, not to vectors such as
    biases and weights of normalisation.

    Args:
        model: the model.
        head_rate: factor of the head's rate.
        layer_decay: factor of a layer's rate to the next layer's.
    """
    head, layers_above = head_names(model), num_layers_above(model)
    by_setting: dict[tuple[float, bool], list[tuple[str, nn.Parameter]]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        rate = head_rate if name in head else layer_decay ** layers_above[name]
        by_setting.setdefault((rate, parameter.ndim > 1), []).append((name, parameter))
    return [
        Group(tuple(name for name, _ in members), tuple(weight for _, weight in members), rate, decays)
        for (rate, decays), members in by_setting.items()
    ]


def num_layers_above(model: Model) -> dict[str, int]:
    """Return the number of layers above each parameter, by its name.

    It is 0 in the last layer and after it, and the number of all layers below the first layer. The
    layers of an encoder and of a decoder are counted apart.
    """
    above: dict[int, int] = {}
    for part in model.modules():
        if isinstance(part, EncoderModel | TextDecoder):
            above |= _of_part(part)
    return {name: above.get(id(parameter), 0) for name, parameter in model.named_parameters()}


def _of_part(part: EncoderModel | TextDecoder) -> dict[int, int]:
    """Return the number of layers above each parameter of an encoder or decoder, by its id."""
    layers = part.layers
    above = {id(parameter): len(layers) for parameter in part.parameters()}
    for module in part.above_layers:
        above |= {id(parameter): 0 for parameter in (module.parameters() if module else ())}
    if isinstance(part, TextDecoder):  # the head may share their weight
        above[id(part.get_input_embeddings().weight)] = len(layers)
    for number, layer in enumerate(layers):
        above |= {id(parameter): len(layers) - 1 - number for parameter in layer.parameters()}
    return above


def new_optimizer(
    groups: Sequence[Group],
    *,
    learning_rate: float,
    weight_decay: float,
    name: str = ADAMW,
    options: Mapping[str, OptionValue] = _NO_OPTIONS,
) -> torch.optim.Optimizer:
    """Return an optimiser over groups; `set_rate` changes its learning rates.

    Args:
        groups: the groups.
        learning_rate: the rate.
        weight_decay: of matrices.
        name: class of torch.optim.
        options: its further arguments.
    """
    members = [
        {"params": [*group.parameters], "rate": group.rate, "weight_decay": weight_decay if group.decays else 0.0}
        for group in groups
    ]
    make: Any = optimizer_class(name)
    optimizer: torch.optim.Optimizer = make(members, lr=learning_rate, **optimizer_arguments(name, options))
    return optimizer


def set_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Set the learning rate of each group, multiplied by its own factor."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group["rate"]


class FlatGradients:
    """Gradients of parameters in one buffer, so that one all-reduce adds the gradients of all workers.

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
            # A view, into which backward adds; `zero_grad(set_to_none=True)` would detach it.
            parameter.grad = self.buffer[place:end].view_as(parameter)
            place = end

    def zero(self) -> None:
        """Set all gradients and sums to zero."""
        self.buffer.zero_()

    def clip(self, most: float | None) -> Tensor:
        """Scale the gradients to a norm of at most `most`, and return their norm before."""
        norm: Tensor = torch.linalg.vector_norm(self.gradients)
        if most is not None:
            # As `clip_grad_norm_` of torch; a comparison on the host would wait for the device.
            self.gradients.mul_((most / (norm + 1e-6)).clamp(max=1.0))
        return norm
