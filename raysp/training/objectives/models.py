"""Models as they begin to be trained: weights of the checkpoint, new heads, frozen parts."""

from typing import Any

import torch
from torch import nn

from raysp.errors import PlanError
from raysp.models.auto import AutoModelForCTC
from raysp.models.base.modeling import Model
from raysp.models.tokenizers.ctc import Wav2Vec2CTCTokenizer
from raysp.planning.training.plans import KEEP, TrainingPlan
from raysp.training.objectives.starting import expecting_new_weights, freeze


def ctc_model(plan: TrainingPlan, tokenizer: Wav2Vec2CTCTokenizer) -> Model:
    """Return a model with a CTC head in training mode, on the plan's device.

    Raises:
        PlanError: a field of `masks` does not exist.
        CheckpointError: the checkpoint cannot be loaded.
    """
    recipe = plan.recipe
    objective = recipe.objective
    is_new = objective.vocabulary != KEEP
    fields: dict[str, Any] = dict(objective.masks)
    if is_new:
        fields |= {"vocab_size": len(tokenizer.get_vocab()), "pad_token_id": tokenizer.pad_token_id}
    torch.manual_seed(recipe.seed)  # of a new head
    options: dict[str, Any] = {"dtype": torch.float32, "strict": not is_new, "ignore_mismatched_sizes": is_new}
    with expecting_new_weights():
        try:
            model: Model = AutoModelForCTC.from_pretrained(plan.checkpoint.path, **options, **fields)
        except TypeError as error:
            raise PlanError(f"objective.masks: {error}") from None
    if is_new:
        _begin_head(model, tokenizer.pad_token_id, objective.blank_bias)
    if recipe.schedule.checkpointing:
        model.gradient_checkpointing_enable()
    if objective.freeze is not None:
        freeze(model, objective.freeze)
    return model.to(plan.device).train()


def _begin_head(model: Model, blank: int, blank_bias: float) -> None:
    """Initialise a head, also one of the same size as that of the checkpoint, whose tokens are others."""
    head = model.get_submodule("lm_head")
    assert isinstance(head, nn.Linear)
    with torch.no_grad():
        head.weight.normal_(0.0, getattr(model.config, "initializer_range", 0.02))
        head.bias.zero_()
        head.bias[blank] = blank_bias
