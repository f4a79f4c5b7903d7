"""The model that a training starts from: settings of its checkpoint, new classes, parts that are not trained."""

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, TypeVar

from torch import nn

from raysp.errors import CheckpointError, PlanError
from raysp.models.base import modeling
from raysp.models.base.modeling import Model
from raysp.models.encoder.heads import AMSoftmaxLoss
from raysp.models.encoder.waveform import FeatureEncoder
from raysp.training.data.micro_batches import seeded

Part = Literal["feature_encoder", "encoder", "base"]
NAMED_OUTPUTS = {"return_dict": True, "output_attentions": False, "output_hidden_states": False}
"""Fields of configurations for outputs by name, and no more of them than a loss needs."""


@contextlib.contextmanager
def loading(seed: int, masks: Mapping[str, object]) -> Iterator[None]:
    """Draw initial weights from a seed, and log no warning of weights that the checkpoint lacks: they are trained.

    Raises:
        PlanError: a configuration does not have a field of `masks`.
    """
    logger = logging.getLogger(modeling.__name__)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with seeded(seed):
            yield
    except TypeError as error:
        if not any(repr(name) in str(error) for name in masks):
            raise
        raise PlanError(f"objective.masks: {error}") from None
    finally:
        logger.setLevel(before)


AnyModel = TypeVar("AnyModel", bound=Model)


def anew(model: AnyModel, *, seed: int) -> AnyModel:
    """Return a model of the same configuration with random weights in float32."""
    with seeded(seed):
        return type(model)(model.config).float()


def set_classes(model: Model, names: Sequence[str], *, seed: int) -> None:
    """Set the classes of a head, which is kept if it has them in this order, and initialised otherwise."""
    config, modules = model.config, dict(model.named_modules())
    if config.id2label == dict(enumerate(names)):
        return
    config.id2label = dict(enumerate(names))
    config.label2id = {name: number for number, name in enumerate(names)}
    part = next(name for name in ("objective", "classifier.out_proj", "classifier") if name in modules)
    before = modules[part]
    new: nn.Module
    with seeded(seed):
        if isinstance(before, AMSoftmaxLoss):
            new = AMSoftmaxLoss(len(before.weight), len(names))
        else:
            assert isinstance(before, nn.Linear)
            new = nn.Linear(before.in_features, len(names))
        model._init_module(new)
    parent, _, name = part.rpartition(".")
    setattr(modules[parent], name, new)


def head_names(model: Model) -> frozenset[str]:
    """Return the names of the parameters of a model's head."""
    if model.base_model is model:
        return model.new_weights
    base = {id(parameter) for parameter in model.base_model.parameters()}
    return frozenset(name for name, parameter in model.named_parameters() if id(parameter) not in base)


def freeze(model: Model, part: Part) -> None:
    """Exclude a part of a model from training.

    Args:
        model: the model.
        part: "feature_encoder", the convolutions; "encoder", the speech encoder; "base", all but the head.

    Raises:
        CheckpointError: the model does not have this part.
    """
    if part == "encoder":
        modules: list[nn.Module] = [model.speech_encoder]
    elif part == "base":
        modules = [] if model.base_model is model else [model.base_model]
    else:
        modules = [module for module in model.modules() if isinstance(module, FeatureEncoder)]
    if not modules:
        has = "a head on a base model" if part == "base" else "convolutions"
        raise CheckpointError(
            f"{type(model).__name__} has no part {part!r}, expected a model with {has}: freeze another part, or none"
        )
    for module in modules:
        module.requires_grad_(False)
