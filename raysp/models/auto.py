"""Auto classes: configurations, models and processors by the names in a checkpoint.

The tables of architectures are `MODULES` and `DECODERS` in registry.py. A class is found by its name in its module: for
`BertConfig` it is `BertLMHeadModel`, for `UniSpeechConfig` `UniSpeechForCTC`.
"""

from pathlib import Path
from typing import Any, ClassVar

import raysp.models
from raysp.checkpoints.access import Access
from raysp.checkpoints.hub import CONFIG_FILES, PROCESSOR_FILES, local_folder, pinned, refuse_foreign
from raysp.errors import CheckpointError
from raysp.models.base.configuration import Config, read_json
from raysp.models.base.modeling import Model
from raysp.models.base.placing import as_dtype, check_attn_implementation
from raysp.models.features.processors import Wav2Vec2Processor, read_feature_extractor_config
from raysp.models.registry import COMPOSITE, DECODERS, MODULES, config_class, module_of, read_config
from raysp.models.tokenizers.named_tokenizers import read_tokenizer

OTHER_NAMES = {  # classes whose names do not begin with the name of their configuration
    "ParakeetCTCForCTC": "ParakeetForCTC",
    "ParakeetCTCModel": "ParakeetForCTC",  # as in transformers
    "ParakeetEncoderModel": "ParakeetEncoder",
    **{
        f"Parakeet{kind}{ending}": f"ParakeetFor{kind}"
        for kind in ("RNNT", "TDT")
        for ending in ("Model", f"For{kind}")
    },
}
WITH_LM = "Wav2Vec2ProcessorWithLM"
"""Processor with a language model, which pipelines use (`Transcript(lm="own")`); here decoding is greedy."""


class Auto:
    """Base of classes that create objects of other classes and have no instances."""

    def __init__(self) -> None:
        raise TypeError(f"{type(self).__name__} has no instances: use {type(self).__name__}.from_pretrained")


class AutoConfig(Auto):
    """Configuration of any model of this package."""

    @staticmethod
    def for_model(model_type: str, **values: Any) -> Config:  # noqa: ANN401 - fields of the configuration
        """Return a configuration of a model type."""
        return config_class(model_type).from_dict(values)

    @staticmethod
    def from_pretrained(
        pretrained_model_name_or_path: str | Path,
        *,
        revision: str | None = None,
        **overrides: Any,  # noqa: ANN401 - values of the configuration
    ) -> Config:
        """Read config.json of a checkpoint folder or hub id; keyword arguments override its values."""
        access = Access.pop_from(overrides)
        folder = local_folder(pretrained_model_name_or_path, CONFIG_FILES, revision=revision, access=access)
        config = config_class(_model_type(folder)).from_pretrained(folder, **overrides)
        config.name_or_path = pretrained_model_name_or_path
        return config


def _model_type(folder: Path) -> str:
    name = read_config(folder).get("model_type")
    if not isinstance(name, str):
        raise CheckpointError(f"{Path(folder) / 'config.json'}: model_type is {name!r}, expected a name")
    return name


class _AutoModel(Auto):
    """Base of auto classes for the models of one task."""

    endings: ClassVar[tuple[str, ...]]
    """Suffixes of the names of the task's classes, in order of preference."""
    model_types: ClassVar[tuple[str, ...]] = tuple(MODULES)

    @classmethod
    def from_config(cls, config: Config, **options: Any) -> Model:  # noqa: ANN401 - as below
        """Return a randomly initialised model.

        Args:
            config: Configuration of the model.
            options: `dtype` or `torch_dtype`; `attn_implementation` and `trust_remote_code=False` have no effect.
        """
        Access.pop_from(options)
        dtype = as_dtype(options.pop("dtype", options.pop("torch_dtype", None)))
        check_attn_implementation(options.pop("attn_implementation", None))
        if options:
            raise TypeError(
                f"{', '.join(options)} given, from_config takes dtype, attn_implementation: omit the others"
            )
        return cls._class_of(type(config).model_type, config.architectures)(config).to(dtype=dtype)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *args: Any,  # noqa: ANN401
        revision: str | None = None,
        **options: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401 - a model
        """Load a checkpoint folder or hub id, in eval mode; a missing head is randomly initialised.

        Arguments as for the model's class. All files are read from one commit of the hub, even during a push.
        """
        access, config = Access.pop_from({**options}), options.get("config")
        if isinstance(config, str | Path):
            config = options["config"] = AutoConfig.from_pretrained(config)
        folder = pinned(pretrained_model_name_or_path, revision=revision, access=access)
        if config is None:
            described = local_folder(folder, CONFIG_FILES, access=access)
            try:
                model_type, architectures = _model_type(described), read_config(described).get("architectures")
            except CheckpointError:
                refuse_foreign(folder, access=access)
                raise
        else:
            model_type, architectures = type(config).model_type, config.architectures
        model_class = cls._class_of(model_type, architectures)
        return model_class.from_pretrained(folder, *args, **{"strict": False, **options})

    @classmethod
    def _class_of(cls, model_type: str, architectures: object = None) -> type[Model]:
        """Return the class that `architectures` of config.json names, if it belongs to this task, else the first."""
        if model_type not in cls.model_types:
            raise CheckpointError(
                f"model_type is {model_type!r}, {cls.__name__} expects one of {', '.join(sorted(cls.model_types))}"
            )
        prefix = config_class(model_type).__name__.removesuffix("Config")
        module = module_of(model_type)
        named = architectures if isinstance(architectures, list) else []
        for ending in sorted(cls.endings, key=lambda ending: prefix + ending not in named):
            model_class = getattr(module, OTHER_NAMES.get(prefix + ending, prefix + ending), None)
            if model_class is not None:
                return model_class  # type: ignore[no-any-return]
        raise CheckpointError(
            f"{prefix} has none of the classes {', '.join(prefix + ending for ending in cls.endings)}"
        )


class AutoModel(_AutoModel):
    """Speech model without a head, or encoder with decoder."""

    endings = ("Model",)


class AutoModelForCTC(_AutoModel):
    """Speech model with a CTC head."""

    endings = ("ForCTC",)


class AutoModelForRNNT(_AutoModel):
    """Speech model with the head of a transducer."""

    endings = ("ForRNNT",)


class AutoModelForTDT(_AutoModel):
    """Speech model with the head of a transducer that predicts durations."""

    endings = ("ForTDT",)


class AutoModelForAudioClassification(_AutoModel):
    """Speech model that classifies recordings."""

    endings = ("ForSequenceClassification", "ForSpeechClassification")


class AutoModelForAudioFrameClassification(_AutoModel):
    """Speech model that classifies frames."""

    endings = ("ForAudioFrameClassification",)


class AutoModelForAudioXVector(_AutoModel):
    """Speech model with speaker embeddings."""

    endings = ("ForXVector",)


class AutoModelForSpeechSeq2Seq(_AutoModel):
    """Speech encoder with a text decoder."""

    endings = ("Model",)
    model_types = (COMPOSITE,)


class AutoModelForCausalLM(_AutoModel):
    """Text decoder."""

    endings = ("ForCausalLM", "LMHeadModel")
    model_types = tuple(DECODERS)


class AutoTokenizer(Auto):
    """Tokenizer of a CTC model or of a text decoder."""

    from_pretrained = staticmethod(read_tokenizer)


class AutoFeatureExtractor(Auto):
    """Feature extractor."""

    @staticmethod
    def from_pretrained(
        pretrained_model_name_or_path: str | Path,
        *,
        revision: str | None = None,
        **options: Any,  # noqa: ANN401 - of the class
    ) -> Any:  # noqa: ANN401 - of one of several classes
        """Read the feature extractor of a checkpoint folder or hub id."""
        access = Access.pop_from(options)
        folder = local_folder(pretrained_model_name_or_path, PROCESSOR_FILES, revision=revision, access=access)
        kind = read_feature_extractor_config(folder).get("feature_extractor_type", "Wav2Vec2FeatureExtractor")
        return _public(folder, kind, "FeatureExtractor").from_pretrained(folder, **options)


class AutoProcessor(Auto):
    """Feature extractor with tokenizer, or the only part that a checkpoint has."""

    @staticmethod
    def from_pretrained(
        pretrained_model_name_or_path: str | Path,
        *,
        revision: str | None = None,
        **options: Any,  # noqa: ANN401 - of the class
    ) -> Any:  # noqa: ANN401 - of one of several classes
        """Read the processor of a checkpoint folder or hub id."""
        access = Access.pop_from(options)
        folder = local_folder(pretrained_model_name_or_path, PROCESSOR_FILES, revision=revision, access=access)
        kind = processor_class(folder)
        if kind == WITH_LM:
            kind = Wav2Vec2Processor.__name__
        if kind is not None:
            return _public(folder, kind, "Processor").from_pretrained(folder, **options)
        if not any((folder / name).is_file() for name in ("tokenizer_config.json", "vocab.json")):
            return AutoFeatureExtractor.from_pretrained(folder, **options)
        if not any((folder / name).is_file() for name in ("preprocessor_config.json", "processor_config.json")):
            return AutoTokenizer.from_pretrained(folder, **options)
        return Wav2Vec2Processor.from_pretrained(folder, **options)


def processor_class(folder: Path) -> str | None:
    """Return the name of the processor in the files of a checkpoint; None without one."""
    for name in ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json"):
        value = read_json(folder / name).get("processor_class") if (folder / name).is_file() else None
        if isinstance(value, str):
            return value
    return None


def _public(folder: str | Path, name: object, ending: str) -> Any:  # noqa: ANN401 - a class
    """Return a public class of this package by its name in a file."""
    names = sorted(public for public in raysp.models.__all__ if public.endswith(ending) and "Auto" not in public)
    if name not in names:
        raise CheckpointError(f"{folder}: names {name!r}, expected one of {', '.join(names)}")
    return getattr(raysp.models, str(name))
