"""Suggestions for a recipe: rates and epochs of published guides, and an evaluation."""

import json

from raysp.specs.pipeline import Shards
from raysp.training.specs.objectives import CTC, Objective, metrics_of, target_column
from raysp.training.specs.recipe import Finetune, Schedule

_ADAPTERS = (1e-3, 4, "Hugging Face's guide to adapters of MMS")
_WAV2VEC2_BERT = (5e-5, 10, "Hugging Face's guide to Wav2Vec2-BERT")
_XLS_R = (3e-4, 30, "Hugging Face's guide to XLS-R, for some hours of speech")
_EVALUATED = {"wer": "--text", "accuracy": "--label", "eer": "--speaker"}
"""Options of `raysp evaluate` by the first metric of an objective."""


def suggested(objective: Objective, architecture: str, schedule: Schedule) -> str:
    """Return a published learning rate and epochs with their source; empty if there are none.

    They exist for recognisers by CTC with a new vocabulary, all weights or adapters; not for random weights
    or another optimiser than AdamW.

    Args:
        objective: the objective.
        architecture: of the checkpoint.
        schedule: schedule of the recipe.
    """
    if not isinstance(objective, CTC) or objective.random_weights or objective.lora or objective.vocabulary == "keep":
        return ""
    if schedule.optimizer is not None:
        return ""
    is_bert = architecture.startswith("Wav2Vec2Bert")
    rate, epochs, source = _ADAPTERS if objective.adapter else _WAV2VEC2_BERT if is_bert else _XLS_R
    length = f"{schedule.epochs:,} epochs" if schedule.epochs else f"{schedule.steps:,} steps"
    return (
        f"a learning rate of {rate:.0e} and {epochs} epochs ({source}); here {schedule.learning_rate:.0e} and {length}"
    )


def evaluating(recipe: Finetune, sink: str) -> list[str]:
    """Return the command that evaluates a trained checkpoint on the rows that the recipe evaluates, or trains, on.

    Of a checkpoint that `raysp evaluate` does not score on them it is one that describes it.
    """
    source = recipe.evaluation.source if recipe.evaluation else recipe.source
    own = recipe.evaluation.column if recipe.evaluation else None
    column = own or target_column(recipe.objective) or source.text
    option = _EVALUATED.get(metrics_of(recipe.objective)[0])
    is_plain = not (source.labels or source.root or source.storage_options)  # an option of the command for none of them
    if not option or not column or not is_plain:
        return ["raysp", "inspect", sink]
    fields = ("id", "audio", "audio_root", "split", "config")
    changed = {name: getattr(source, name) for name in fields if getattr(source, name) != getattr(Shards, name)}
    settings = [word for name, value in changed.items() for word in ("--set", f"source.{name}={json.dumps(value)}")]
    return ["raysp", "evaluate", sink, *source.urls, option, column, *settings]
