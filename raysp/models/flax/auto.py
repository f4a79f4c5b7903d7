"""Auto classes of Flax models, which choose a class by the `model_type` of a configuration."""

from pathlib import Path
from typing import Any, ClassVar

from raysp.checkpoints.access import KEYWORDS
from raysp.errors import CheckpointError
from raysp.models.auto import Auto, AutoConfig
from raysp.models.base.configuration import Config
from raysp.models.flax.modeling import FlaxModel
from raysp.models.flax.speech_encoder_decoder import FlaxSpeechEncoderDecoderModel
from raysp.models.flax.text_decoder import FlaxBartForCausalLM, FlaxBertForCausalLM, FlaxGPT2LMHeadModel
from raysp.models.flax.wav2vec2 import FlaxWav2Vec2Model


class _FlaxAuto(Auto):
    """Base of classes that create objects of other classes and have no instances."""

    classes: ClassVar[dict[str, type[FlaxModel]]]
    """The classes by `model_type`."""

    @classmethod
    def from_config(cls, config: Config, **options: Any) -> FlaxModel:  # noqa: ANN401 - options of the model
        """Return a randomly initialised model."""
        return cls._class_of(config)(config, **options)

    @classmethod
    def from_pretrained(cls, name: str | Path, *args: Any, **options: Any) -> Any:  # noqa: ANN401 - a model
        """Load a checkpoint folder or hub id; arguments as for the model's class."""
        config = options.get("config")
        if config is None:
            config = AutoConfig.from_pretrained(name, **{key: options[key] for key in KEYWORDS if key in options})
        return cls._class_of(config).from_pretrained(name, *args, **options)

    @classmethod
    def _class_of(cls, config: Config) -> type[FlaxModel]:
        model_type = type(config).model_type
        if model_type not in cls.classes:
            raise CheckpointError(
                f"model_type is {model_type!r}, {cls.__name__} has {', '.join(cls.classes)}: use "
                f"{cls.__name__.removeprefix('Flax')}, which has the others"
            )
        return cls.classes[model_type]


class FlaxAutoModel(_FlaxAuto):
    """Speech encoder, or encoder with decoder."""

    classes: ClassVar[dict[str, type[FlaxModel]]] = {
        "speech-encoder-decoder": FlaxSpeechEncoderDecoderModel,
        "wav2vec2": FlaxWav2Vec2Model,
    }


class FlaxAutoModelForCausalLM(_FlaxAuto):
    """Text decoder."""

    classes: ClassVar[dict[str, type[FlaxModel]]] = {
        "bart": FlaxBartForCausalLM,
        "bert": FlaxBertForCausalLM,
        "gpt2": FlaxGPT2LMHeadModel,
    }
