"""Models as they begin to be trained: weights of the checkpoint, new heads, frozen parts."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import torch
from torch import nn

from raysp.errors import PlanError
from raysp.models.auto import AutoModelForCTC
from raysp.models.base.modeling import Model
from raysp.models.encoder.encoder_heads import ForCTC
from raysp.training.characters import HeadTokenizer
from raysp.training.objectives.language_objective import adapter_options, train_language
from raysp.training.objectives.lora import add_lora, check_targets
from raysp.training.objectives.starting_model import Part, anew, expecting_new_weights, freeze, load_head
from raysp.training.planning.objective_checks import KEEP
from raysp.training.planning.training_plan import TrainingPlan
from raysp.training.specs.adaptation import LoRA
from raysp.training.specs.objectives import CTC, Classify, Speakers


def ctc_model(plan: TrainingPlan, objective: CTC, tokenizer: HeadTokenizer) -> Model:
    """Return a model with a CTC head in training mode, on the plan's device.

    Args:
        plan: the plan.
        objective: the objective of its recipe.
        tokenizer: of the head.

    Raises:
        PlanError: a field of `masks` does not exist.
        CheckpointError: the checkpoint cannot be loaded.
    """
    is_new = objective.vocabulary != KEEP
    fields: dict[str, Any] = dict(objective.masks)
    if is_new:
        fields |= {"vocab_size": len(tokenizer.get_vocab()), "pad_token_id": tokenizer.pad_token_id}
    options: dict[str, Any] = {"dtype": torch.float32, "strict": not is_new, "ignore_mismatched_sizes": is_new}
    folder, language = plan.checkpoint.path, objective.adapter
    if language is not None:
        options |= {**adapter_options(objective.checkpoint, folder, language, is_new=is_new), "strict": False}
    elif not is_new and plan.checkpoint.adapter is not None:
        options["target_lang"] = plan.checkpoint.language  # whose file has other values than the weights
    torch.manual_seed(plan.recipe.seed)  # of a new head
    with expecting_new_weights(), naming_masks():
        model: Model = AutoModelForCTC.from_pretrained(folder, **options, **fields)
    if isinstance(model, ForCTC):
        model.target_lang = None  # an adapter is saved only where it is trained
    if language is not None:
        train_language(model, language, is_new=is_new)
    if objective.random_weights:
        model = anew(model, seed=plan.recipe.seed)
    if is_new or objective.random_weights:
        _begin_head(model, tokenizer.pad_token_id, objective.blank_bias)
    return begun(model, plan, objective.freeze, objective.lora)


@contextlib.contextmanager
def naming_masks() -> Iterator[None]:
    """Raise PlanError for fields of `masks` that a configuration does not have."""
    try:
        yield
    except TypeError as error:
        raise PlanError(f"objective.masks: {error}") from None


def check_lora(plan: TrainingPlan) -> None:
    """Raise PlanError if the checkpoint of a plan has no layer for the LoRA of its objective; no weights are read."""
    lora: LoRA | None = getattr(plan.recipe.objective, "lora", None)
    if lora is not None:
        check_targets(lora.targets, plan.checkpoint.path, plan.decoder)


AnyModel = TypeVar("AnyModel", bound=Model)


def begun(model: AnyModel, plan: TrainingPlan, part: Part | None, lora: LoRA | None = None) -> AnyModel:
    """Return a model as its training begins: on its device, with the checkpointing of its schedule.

    Args:
        model: the model.
        plan: the plan.
        part: part that is not trained; None: all of it is trained.
        lora: LoRA, which is trained in place of the weights of the checkpoint; None: they are trained.

    Raises:
        PlanError: the model has no layer for LoRA.
    """
    if plan.recipe.schedule.checkpointing:
        model.gradient_checkpointing_enable()
    if part is not None:
        freeze(model, part)
    if lora is not None:
        add_lora(
            model,
            rank=lora.rank,
            alpha=lora.alpha,
            dropout=lora.dropout,
            targets=lora.targets,
            seed=plan.recipe.seed,
        )
    return model.to(plan.workers.device).train()


def named_model(auto: Any, plan: TrainingPlan, spec: Classify | Speakers, names: Sequence[str]) -> Model:  # noqa: ANN401 - a class of auto.py
    """Return a model with the head of an auto class for these classes, as its training begins.

    Raises:
        PlanError: a field of `masks` does not exist.
        CheckpointError: the checkpoint cannot be loaded.
    """
    with naming_masks():
        model = load_head(
            auto,
            plan.checkpoint.path,
            names=names,
            masks=spec.masks,
            seed=plan.recipe.seed,
            random_weights=spec.random_weights,
        )
    return begun(model, plan, spec.freeze, spec.lora)


def base_parameters(model: Model) -> Iterator[nn.Parameter]:
    """Yield the trained parameters of the base model."""
    return (weight for weight in model.base_model.parameters() if weight.requires_grad)


def _begin_head(model: Model, blank: int, blank_bias: float) -> None:
    """Initialise a head, even if the checkpoint has a head of equal size for other tokens."""
    assert isinstance(model, ForCTC)
    head: Any = model.head  # a dense layer, or a convolution of one tap
    with torch.no_grad():
        head.weight.normal_(0.0, getattr(model.config, "initializer_range", 0.02))
        head.bias.zero_()
        head.bias[blank] = blank_bias
