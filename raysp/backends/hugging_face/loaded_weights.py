"""Weights of a checkpoint of transformers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from raysp.backends.hugging_face.describing import DIRECT, Kind, read
from raysp.errors import CheckpointError
from raysp.models.base.modeling import HEAD_PARTS

NAMES_SHOWN = 5
IN_TRAINING = "masked_spec_embed"
"""Suffix of a weight that is used in training only, and that some checkpoints lack."""


def load_weights(folder: Path, kind: Kind, dtype: str) -> Any:  # noqa: ANN401 - a model of transformers
    """Return the model with the weights of a checkpoint.

    Raises:
        CheckpointError: names or shapes of its weights do not fit.
    """
    attention = "sdpa" if getattr(kind.model_class, "_supports_sdpa", False) else "eager"
    options = {
        **{name: value for name, value in DIRECT.items() if name != "trust_remote_code"},
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
            more = f" and {len(wrong) - NAMES_SHOWN} more" if len(wrong) > NAMES_SHOWN else ""
            raise CheckpointError(
                f"{folder}: weights do not fit {kind.model_class.__name__}: {name} {', '.join(wrong[:NAMES_SHOWN])}"
                f"{more}; use the config.json that was saved with these weights"
            )
    return model


def _shown(key: str | tuple[str, Sequence[int], Sequence[int]]) -> str:
    """Return the name of a weight, with its shapes in file and model if these differ."""
    return key if isinstance(key, str) else f"{key[0]} {[*key[1]]} instead of {[*key[2]]}"
