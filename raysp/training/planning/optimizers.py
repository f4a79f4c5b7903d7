"""Optimisers of torch by their names: checks of their options."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from raysp.errors import PlanError
from raysp.training.specs.recipe import ADAMW, OptionValue, Schedule

if TYPE_CHECKING:
    import torch
    from torch import Tensor

OF_FAIRSEQ: Mapping[str, OptionValue] = {"betas": (0.9, 0.98), "eps": 1e-8}
"""Options of AdamW with which fairseq fine-tunes wav2vec 2.0 (Baevski et al. 2020)."""
OF_SCHEDULE = {"lr": "schedule.learning_rate", "weight_decay": "schedule.weight_decay"}
"""Options of optimisers that are fields of a schedule."""
OTHER_LOOPS = ("params", "capturable", "differentiable")
"""Options of loops that record their steps or differentiate them."""
_WHOLE = "it is made for gradients of the whole corpus, not of steps: choose another one"
UNFIT = {"LBFGS": _WHOLE, "Rprop": _WHOLE, "SparseAdam": "it is made for sparse gradients: choose another one"}
"""Optimisers that cannot train a model in steps, with the reasons."""
SIZES = (2, 3, 4, 5)
"""Dimensions of the parameters on which an optimiser is tried, all different and above 1."""


def settled_optimizer(schedule: Schedule) -> Schedule:
    """Return a schedule with the name of its optimiser as torch spells it.

    Raises:
        PlanError: torch has no such optimiser, or it cannot train a model with these options.
    """
    if (schedule.optimizer, schedule.optimizer_options) == (ADAMW, {}):
        return schedule  # without torch
    classes = {name.lower(): name for name in _classes()}
    optimizer = classes.get(schedule.optimizer.removeprefix("torch.optim.").lower())
    if optimizer is None:
        usable = ", ".join(name for name in classes.values() if not _fault(name, {}))
        raise PlanError(
            f"schedule.optimizer: found {schedule.optimizer!r}; expected an optimiser of torch by its name: {usable}"
        )
    if why := _fault(optimizer, schedule.optimizer_options):
        raise PlanError(f"schedule.optimizer: {described_optimizer(optimizer, schedule.optimizer_options)}: {why}")
    return replace(schedule, optimizer=optimizer)


def described_optimizer(name: str, options: Mapping[str, OptionValue]) -> str:
    """Return an optimiser with its options as text."""
    return f"torch.optim.{name}({', '.join(f'{key}={value!r}' for key, value in options.items())})"


def optimizer_class(name: str) -> "type[torch.optim.Optimizer]":
    """Return an optimiser of torch by its name."""
    return _classes()[name]


def optimizer_arguments(name: str, options: Mapping[str, OptionValue]) -> dict[str, Any]:
    """Return the arguments of an optimiser besides parameters, rate and weight decay."""
    return {**(OF_FAIRSEQ if name == ADAMW else {}), **options}


def kept_state(name: str, options: Mapping[str, OptionValue]) -> "list[dict[str, Tensor]]":
    """Return the state of an optimiser for parameters of `SIZES[:n]`, for each number n of dimensions, after a step.

    Raises:
        Exception: it takes no such options, or cannot train such parameters.
    """
    import torch

    parameters = [torch.nn.Parameter(torch.ones(SIZES[:number])) for number in range(len(SIZES) + 1)]
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    make: Any = optimizer_class(name)
    optimizer: torch.optim.Optimizer = make(parameters, lr=1e-3, weight_decay=0.0, **optimizer_arguments(name, options))
    optimizer.step()
    return [{**optimizer.state.get(parameter, {})} for parameter in parameters]


def _classes() -> "dict[str, type[torch.optim.Optimizer]]":
    import torch

    classes = {name: value for name, value in vars(torch.optim).items() if isinstance(value, type)}
    base = torch.optim.Optimizer
    return {name: value for name, value in sorted(classes.items()) if issubclass(value, base) and value is not base}


def _fault(name: str, options: Mapping[str, OptionValue]) -> str:
    """Return the reason why an optimiser cannot train a model; empty if it can."""
    for key in options:
        if key in OF_SCHEDULE:
            return f"{key} is given; set {OF_SCHEDULE[key]} instead"
        if key in OTHER_LOOPS:
            return f"{key} is given, which the loop of a training does not support: leave it out"
    if name in UNFIT:
        return UNFIT[name]
    try:
        states = kept_state(name, options)
    except Exception as error:  # torch raises any error for options or parameters
        return f"{str(error) or type(error).__name__}"
    untensored = [key for state in states for key, value in state.items() if not hasattr(value, "untyped_storage")]
    return f"its state {untensored[0]!r} is not a tensor, so a training could not go on exactly" if untensored else ""
