"""The model that a training starts from: settings of its checkpoint, new classes, parts that are not trained."""

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from torch import nn

from raysp.errors import CheckpointError, PlanError
from raysp.models.auto import AutoConfig
from raysp.models.base import modeling
from raysp.models.base.modeling import Model
from raysp.models.base.placing import without_weights
from raysp.models.encoder.encoder_heads import ForXVector
from raysp.models.encoder.heads import AMSoftmaxLoss
from raysp.models.encoder.speech_classification import ForSpeechClassification
from raysp.models.encoder.waveform import FeatureEncoder
from raysp.training.data.micro_batches import seeded

Masks = Mapping[str, float | int | bool]
"""Fields of the encoder's configuration for training, such as mask_time_prob or layerdrop."""
Part = Literal["feature_encoder", "encoder", "base"]
NAMED_OUTPUTS = {"return_dict": True, "output_attentions": False, "output_hidden_states": False}
"""Fields of configurations for outputs by name, and no more of them than a loss needs."""


def load_head(
    auto: Any,  # noqa: ANN401 - a class of auto.py
    folder: Path,
    *,
    names: Sequence[str],
    masks: Masks | None = None,
    seed: int = 0,
    random_weights: bool = False,
) -> Model:
    """Load a checkpoint with the head of an auto class, in training mode and float32.

    Args:
        auto: such as `AutoModelForAudioClassification`.
        folder: model folder; a head that it lacks is initialised.
        names: classes; if they differ from the checkpoint's, their layer is initialised.
        masks: fields of the configuration.
        seed: seed of initial weights.
        random_weights: whether all weights are initialised.
    """
    with seeded(seed), expecting_new_weights():
        model: Model = auto.from_pretrained(folder, dtype=torch.float32, **NAMED_OUTPUTS, **(masks or {}))
    model = (anew(model, seed=seed) if random_weights else model).train()
    _set_classes(model, names, seed=seed)
    return model


AnyModel = TypeVar("AnyModel", bound=Model)


def anew(model: AnyModel, *, seed: int) -> AnyModel:
    """Return a model of the same configuration with random weights in float32."""
    with seeded(seed):
        return type(model)(model.config).float()


def shortest_input(auto: Any, folder: Path) -> int:  # noqa: ANN401 - a class of auto.py
    """Return the samples of the shortest input of a checkpoint with the head of an auto class; no weights are read.

    Raises:
        CheckpointError: the architecture has no such head.
    """
    config = AutoConfig.from_pretrained(folder)
    with without_weights():
        model = auto.from_config(config)
    return int(model.min_samples)


@contextlib.contextmanager
def naming_masks() -> Iterator[None]:
    """Raise PlanError for fields of `masks` that a configuration does not have."""
    try:
        yield
    except TypeError as error:
        raise PlanError(f"objective.masks: {error}") from None


@contextlib.contextmanager
def expecting_new_weights() -> Iterator[None]:
    """Log no warning of weights that the checkpoint lacks: they are trained."""
    logger = logging.getLogger(modeling.__name__)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _set_classes(model: Model, names: Sequence[str], *, seed: int) -> None:
    """Set the classes of a head, which is kept if it has them in this order, and initialised otherwise."""
    part, config = _last_layer(model), model.config
    if config.id2label == dict(enumerate(names)):
        return
    config.id2label = dict(enumerate(names))
    config.label2id = {name: number for number, name in enumerate(names)}
    before = model.get_submodule(part)
    new: nn.Module
    with seeded(seed):
        if isinstance(before, AMSoftmaxLoss):
            new = AMSoftmaxLoss(len(before.weight), len(names))
        else:
            assert isinstance(before, nn.Linear)
            new = nn.Linear(before.in_features, len(names))
        model._init_module(new)
    parent, _, name = part.rpartition(".")
    setattr(model.get_submodule(parent), name, new)


def _last_layer(model: Model) -> str:
    """Return the name of the layer of a head whose outputs are classes."""
    if isinstance(model, ForXVector):
        return "objective"
    return "classifier.out_proj" if isinstance(model, ForSpeechClassification) else "classifier"


def head_names(model: Model) -> frozenset[str]:
    """Return the names of the parameters of a model's head."""
    if model.base_model is model:
        return model.new_weights
    base = {id(parameter) for parameter in model.base_model.parameters()}
    return frozenset(name for name, parameter in model.named_parameters() if id(parameter) not in base)


def parameters_of(model: Model, part: Part) -> list[nn.Parameter]:
    """Return the parameters of a part of a model.

    Args:
        model: the model.
        part: "feature_encoder", the convolutions; "encoder", the speech encoder; "base", all but the head.

    Raises:
        CheckpointError: the model does not have this part.
    """
    if part == "encoder":
        return [*model.speech_encoder.parameters()]
    if part == "base":
        parameters = [] if model.base_model is model else [*model.base_model.parameters()]
    else:
        convolutions = (module for module in model.modules() if isinstance(module, FeatureEncoder))
        parameters = [parameter for module in convolutions for parameter in module.parameters()]
    if not parameters:
        has = "a head on a base model" if part == "base" else "convolutions"
        raise CheckpointError(
            f"{type(model).__name__} has no part {part!r}, expected a model with {has}: freeze another part, or none"
        )
    return parameters


def freeze(model: Model, part: Part) -> None:
    """Exclude a part of a model from training.

    Raises:
        CheckpointError: the model does not have this part.
    """
    for parameter in parameters_of(model, part):
        parameter.requires_grad_(False)
