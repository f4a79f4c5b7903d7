"""Weights of a checkpoint of transformers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from raysp.backends.hugging_face.describing import Kind, read
from raysp.errors import CheckpointError
from raysp.models.base.configuration import read_json
from raysp.models.base.modeling import HEAD_PARTS
from raysp.words import listed

NAMES_SHOWN = 5
OF_PEFT = "base_model.model."
"""Prefix of the names of weights in an adapter."""
OTHER_LORA = ("alpha_pattern", "modules_to_save", "rank_pattern", "use_dora")
"""Options of an adapter that change more than weights by pairs of matrices."""
IN_TRAINING = "masked_spec_embed"
"""Suffix of a weight that is used in training only, and that some checkpoints lack."""


def check_adapter_files(folder: Path, name: str) -> None:
    """Raise CheckpointError if a checkpoint lacks the adapter by which it recognises speech, or it is no plain LoRA."""
    config = folder / name / "adapter_config.json"
    if not config.is_file():
        raise CheckpointError(
            f"{folder}: no folder {name}, the adapter by which this model recognises speech, without which its texts "
            "would be wrong: use the folder as published, on a local disk or by its hub id"
        )
    for option in sorted({*OTHER_LORA} & {name for name, value in read_json(config).items() if value}):
        raise CheckpointError(f"{config}: {option} is set, expected a LoRA without it: use the adapter as published")


def merge_adapter(folder: Path, name: str, model: Any) -> None:  # noqa: ANN401 - a model of transformers
    """Add the LoRA in a folder of a checkpoint to the weights of its model, as `merge_and_unload` of PEFT does.

    Raises:
        CheckpointError: its weights do not fit.
    """
    if wrong := read(folder, lambda: _merge(folder / name, dict(model.named_parameters()))):
        raise CheckpointError(
            f"{folder}: weights of {name} do not fit: {listed(wrong, NAMES_SHOWN)}; expected pairs of lora_A and "
            "lora_B: use the adapter as published"
        )


def _merge(folder: Path, parameters: Mapping[str, Tensor]) -> list[str]:
    """Add a LoRA to the parameters of a model, and return the names of those of its weights that do not fit."""
    config, weights = read_json(folder / "adapter_config.json"), load_file(folder / "adapter_model.safetensors")
    scale = config["lora_alpha"] / (config["r"] ** 0.5 if config.get("use_rslora") else config["r"])
    for key in [key for key in weights if ".lora_A." in key]:
        parameter = parameters.get(key.removeprefix(OF_PEFT).replace(".lora_A.", "."))
        second = key.replace(".lora_A.", ".lora_B.")
        if parameter is not None and second in weights:
            change = weights.pop(second).float() @ weights.pop(key).float()
            parameter.data = (parameter.data.float() + scale * change).to(parameter.dtype)
    return sorted(weights)


def load_weights(folder: Path, kind: Kind, dtype: str) -> Any:  # noqa: ANN401 - a model of transformers
    """Return the model with the weights of a checkpoint.

    Raises:
        CheckpointError: names or shapes of its weights do not fit.
    """
    attention = "sdpa" if getattr(kind.model_class, "_supports_sdpa", False) else "eager"
    options = {
        "local_files_only": True,
        "config": kind.config,
        "dtype": getattr(torch, dtype),
        "use_safetensors": True,
        "attn_implementation": attention,
        "output_loading_info": True,
        "ignore_mismatched_sizes": True,  # they are refused below, by name; the error of transformers names none
    }
    model, info = read(folder, lambda: kind.model_class.from_pretrained(folder, **options))
    for name in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        named = (key for key in map(_shown, info.get(name) or ()) if not key.endswith(IN_TRAINING))
        ignored = HEAD_PARTS if kind.head is None and name == "unexpected_keys" else frozenset()
        if wrong := sorted(key for key in named if key.partition(".")[0] not in ignored):
            raise CheckpointError(
                f"{folder}: weights do not fit {kind.model_class.__name__}: {name} {listed(wrong, NAMES_SHOWN)}; use "
                "the config.json that was saved with these weights"
            )
    return model


def _shown(key: str | tuple[str, Sequence[int], Sequence[int]]) -> str:
    """Return the name of a weight, with its shapes in file and model if these differ."""
    return key if isinstance(key, str) else f"{key[0]} {[*key[1]]} instead of {[*key[2]]}"
