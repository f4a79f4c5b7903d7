"""Auto classes of Flax models: counterparts of the classes that those of PyTorch choose."""

from pathlib import Path
from typing import Any, ClassVar

import raysp.models
from raysp.models.auto import AutoConfig, AutoModel, AutoModelForCTC, AutoModelForSpeechSeq2Seq
from raysp.models.base.configuration import Config
from raysp.models.flax.modeling import FlaxModel


class _FlaxAutoModel:
    """Base of classes that create objects of other classes and have no instances."""

    of_torch: ClassVar[Any]
    """The auto class of PyTorch for the same task."""

    def __init__(self) -> None:
        raise TypeError(f"{type(self).__name__} has no instances: use {type(self).__name__}.from_pretrained")

    @classmethod
    def from_config(cls, config: Config, **options: Any) -> FlaxModel:  # noqa: ANN401 - those of the model
        """Return a randomly initialised model."""
        model: FlaxModel = cls._class_of(type(config).model_type)(config, **options)
        return model

    @classmethod
    def from_pretrained(cls, name: str | Path, *args: Any, **options: Any) -> Any:  # noqa: ANN401 - a model
        """Load a checkpoint folder or hub id; arguments as for the model's class."""
        config = options.get("config")
        if config is None:
            access = ("revision", "token", "cache_dir", "local_files_only", "force_download", "subfolder")
            config = AutoConfig.from_pretrained(name, **{key: options[key] for key in access if key in options})
        return cls._class_of(type(config).model_type).from_pretrained(name, *args, **options)

    @classmethod
    def _class_of(cls, model_type: str) -> Any:  # noqa: ANN401 - a class
        name = f"Flax{cls.of_torch._class_of(model_type).__name__}"
        return getattr(raysp.models, name)


class FlaxAutoModel(_FlaxAutoModel):
    """Speech model without a head, or encoder with decoder."""

    of_torch = AutoModel


class FlaxAutoModelForCTC(_FlaxAutoModel):
    """Speech model with a CTC head."""

    of_torch = AutoModelForCTC


class FlaxAutoModelForSpeechSeq2Seq(_FlaxAutoModel):
    """Speech encoder with a text decoder."""

    of_torch = AutoModelForSpeechSeq2Seq
