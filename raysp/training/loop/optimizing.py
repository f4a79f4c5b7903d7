"""Parameters of an optimiser: groups with rates of their own, and gradients in one flat buffer."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from raysp import tracebacks
from raysp.errors import PlanError
from raysp.models.base.modeling import Model
from raysp.models.decoder.text_decoder import TextDecoder
from raysp.models.encoder.speech_model import EncoderModel
from raysp.specs.pipeline import load_function
from raysp.training.objectives.starting_model import head_names
from raysp.training.specs.recipe import Schedule

BETAS = (0.9, 0.98)
"""Betas of AdamW with which fairseq fine-tunes wav2vec 2.0 (Baevski et al. 2020)."""


def group_parameters(model: Model, schedule: Schedule) -> list[dict[str, Any]]:
    """Return the parameters of a model that are trained, in the groups of an optimiser.

    Weights of the head have their own rate: weights outside the base model, or, of an encoder-decoder, weights that
    no checkpoint had, such as new cross attention. The rates of layers fall from the last to the first by a factor
    each; weights below the first layer have one more factor. Weight decay applies to matrices, not to vectors such as
    biases and weights of normalisation.

    Args:
        model: the model.
        schedule: rates and weight decay; the entry `rate` of each group is its factor of the learning rate.
    """
    head, layers_above = head_names(model), {} if schedule.layer_decay == 1.0 else num_layers_above(model)
    groups: dict[tuple[float, bool], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        rate = schedule.head_rate if name in head else schedule.layer_decay ** layers_above.get(name, 0)
        decays = parameter.ndim > 1
        entries = {"lr": schedule.learning_rate, "weight_decay": schedule.weight_decay if decays else 0.0}
        group = groups.setdefault((rate, decays), {"params": [], **entries, "rate": rate})
        group["params"].append(parameter)
    return [*groups.values()]


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


def new_optimizer(groups: Sequence[dict[str, Any]], name: str | None = None) -> torch.optim.Optimizer:
    """Return an optimiser over groups of parameters.

    Args:
        groups: the groups.
        name: function of the user that returns the optimiser, "module:function"; None: it is AdamW.

    Raises:
        PlanError: the function fails, or returns no optimiser over these groups.
    """
    expected = {id(weight): group["rate"] for group in groups for weight in group["params"]}
    if name is None:
        return torch.optim.AdamW(groups, betas=BETAS)
    function = load_function(name)
    try:
        optimizer = function(groups)
    except (Exception, SystemExit) as error:
        tracebacks.raise_if_stopped(error)
        tracebacks.note(error)
        where = tracebacks.described(error, name.partition(":")[0])
        raise PlanError(f"schedule.optimizer: {name!r} failed: {where}") from error
    if not isinstance(optimizer, torch.optim.Optimizer):
        kind = type(optimizer).__name__
        raise PlanError(f"schedule.optimizer: {name!r} returned a {kind}; expected a torch.optim.Optimizer")
    rates = {id(weight): group.get("rate") for group in optimizer.param_groups for weight in group["params"]}
    if rates != expected:
        raise PlanError(
            f"schedule.optimizer: {name!r} returned an optimiser of other parameters or rates; expected one over the "
            "groups that the function is called with, with their entries"
        )
    return optimizer


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
            # A view, into which backward adds, and which `buffer.zero_()` sets to zero; `zero_grad` would detach it.
            parameter.grad = self.buffer[place:end].view_as(parameter)
            place = end

    def clip(self, most: float | None) -> Tensor:
        """Scale the gradients to a norm of at most `most`, and return their norm before."""
        norm: Tensor = torch.linalg.vector_norm(self.gradients)
        if most is not None:
            # As `clip_grad_norm_` of torch; a comparison on the host would wait for the device.
            self.gradients.mul_((most / (norm + 1e-6)).clamp(max=1.0))
        return norm
