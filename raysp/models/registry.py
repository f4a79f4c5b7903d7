"""Registry of model classes, and their lookup by config.json.

`model_type` and `architectures` of config.json name classes of this package; nothing else is imported, so code of a
checkpoint (`auto_map`) is never run. A new architecture is one module and one line of `MODULES`.
"""

import importlib
import re
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from raysp.capabilities import Capability
from raysp.errors import CheckpointError
from raysp.models.base.configuration import Config, read_json
from raysp.models.base.modeling import Model

MODULES = {  # model_type -> module of this package
    "hubert": "hubert",
    "parakeet_ctc": "parakeet",
    "parakeet_encoder": "parakeet",
    "parakeet_rnnt": "parakeet_transducers",
    "parakeet_tdt": "parakeet_transducers",
    "sew-d": "sew_d",
    "speech-encoder-decoder": "speech_encoder_decoder",
    "unispeech": "unispeech",
    "wav2vec2": "wav2vec2",
    "wav2vec2-bert": "wav2vec2_bert",
}
DECODERS = {  # model_type -> module, for text decoders of a speech-encoder-decoder
    "bart": "bart",
    "bert": "bert",
    "gpt2": "gpt2",
    "mbart": "mbart",
}

PRETRAINING = "ForPreTraining"
"""Ending of the names of classes with heads of pre-training; if raysp does not have the class, the encoder opens."""
ENCODERS = {"HubertModelWithFinalProj": "HubertModel"}
"""Other classes of published checkpoints whose encoder opens, with the class of the encoder."""

COMPOSITE = "speech-encoder-decoder"
NO_ENCODERS = {COMPOSITE, "parakeet_ctc", "parakeet_encoder", "parakeet_rnnt", "parakeet_tdt"}
"""Model types that cannot be the encoder of a speech-encoder-decoder."""


def read_config(folder: str | Path) -> dict[str, Any]:
    """Return the content of config.json."""
    folder = Path(folder)
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such folder, expected a checkpoint with config.json and model.safetensors")
    return read_json(folder / "config.json")


def encoder_types() -> list[str]:
    """Return the model types that can be the encoder of a speech-encoder-decoder."""
    return sorted(set(MODULES) - NO_ENCODERS)


def decoder_types() -> list[str]:
    """Return the model types that can be the decoder of a speech-encoder-decoder."""
    return sorted(DECODERS)


def module_of(model_type: str) -> ModuleType:
    """Return the module of a model type."""
    modules = {**MODULES, **DECODERS}
    if model_type not in modules:
        raise CheckpointError(f"model_type is {model_type!r}, expected one of {', '.join(sorted(modules))}")
    return importlib.import_module(f"raysp.models.{modules[model_type]}")


def config_class(model_type: str) -> type[Config]:
    """Return the configuration class of a model type."""
    for value in vars(module_of(model_type)).values():
        if isinstance(value, type) and issubclass(value, Config) and vars(value).get("model_type") == model_type:
            return value
    raise CheckpointError(f"raysp.models.{model_type}: no configuration of model_type {model_type!r}")


def architectures_of(model_type: str) -> dict[str, type[Model]]:
    """Return the runnable classes of a model type by name."""
    module = module_of(model_type)
    return {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, Model) and value.__module__ == module.__name__
        if value.forward is not nn.Module.forward
    }


def capabilities_of(cls: type[Model]) -> tuple[Capability, ...]:
    """Return the capabilities of a class: the results of its head, and hidden states."""
    return (*cls.gives, Capability.HIDDEN_STATES)


def model_classes(folder: str | Path) -> list[type[Model]]:
    """Return the class that config.json names, or several classes that share an encoder.

    If config.json names a class with pre-training heads that raysp lacks, the class of the encoder is returned.

    Raises:
        CheckpointError: The model type or an architecture is unknown.
    """
    config = read_config(folder)
    where = Path(folder) / "config.json"
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in MODULES:
        raise CheckpointError(
            f"{where}: model_type is {model_type!r}, expected one of {', '.join(sorted(MODULES))}: "
            "use a checkpoint of a supported model"
        )
    own = architectures_of(model_type)
    classes = {base.removesuffix("Model") + PRETRAINING: cls for base, cls in own.items() if base.endswith("Model")}
    classes |= {name: own[base] for name, base in ENCODERS.items() if base in own}
    classes |= own
    architectures = config.get("architectures")
    if architectures is None:
        raise CheckpointError(
            f"{where}: architectures is not there, expected the class of these weights: add it, one of "
            f'{", ".join(sorted(classes))}; such as "architectures": ["NAME"], where NAME ends with ForCTC if they '
            "have lm_head.weight"
        )
    # Flax and TensorFlow save a class with the prefix of their library.
    names = [re.sub("^(Flax|TF)", "", str(name)) for name in architectures] if isinstance(architectures, list) else []
    supported = [name for name in names if name in classes]
    if not supported or supported != names or len({*supported}) < len(supported):
        raise CheckpointError(
            f"{where}: architectures is {architectures!r}, expected a list with one of "
            f"{', '.join(sorted(classes))}: use a checkpoint of such a model, or fine-tune this one first"
        )
    return [classes[name] for name in supported]
