"""Checkpoint folders: which model they hold, whether they are whole and safe, and loading them.

`model_type` and `architectures` of config.json name a class of this package; nothing else is ever imported, so code
that comes with a checkpoint (`auto_map`) has no effect. A new architecture is one module and one line of `MODULES`.
"""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from raysp.errors import CheckpointError
from raysp.models.configuration import Config, read_json
from raysp.models.log_mels import MELS_PER_FRAME
from raysp.models.modeling import Model, Padding
from raysp.models.processors import (
    FeatureExtractor,
    TextOrCTCTokenizer,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    read_feature_extractor_config,
    read_tokenizer,
)
from raysp.models.seamless_features import SeamlessM4TFeatureExtractor
from raysp.models.weights import TensorHeader, check_names_and_shapes, read_headers, weight_files

MODULES = {  # model_type -> module of this package
    "hubert": "hubert",
    "sew-d": "sew_d",
    "speech-encoder-decoder": "speech_encoder_decoder",
    "unispeech": "unispeech",
    "wav2vec2": "wav2vec2",
    "wav2vec2-bert": "wav2vec2_bert",
}
DECODERS = {  # the same for text decoders, which are parts of a speech-encoder-decoder
    "bart": "bart",
    "bert": "bert",
    "gpt2": "gpt2",
    "mbart": "mbart",
}

COMPOSITE = "speech-encoder-decoder"

LABEL_FILES = (
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer_config.json",
    "vocab.json",
    "added_tokens.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "vocab.txt",
    "merges.txt",
)
PROCESSORS = {
    "Wav2Vec2BertProcessor": "SeamlessM4TFeatureExtractor",
    "Wav2Vec2Processor": "Wav2Vec2FeatureExtractor",
}
MAX_SAMPLE_RATE = 768_000  # the highest that audio formats know


@dataclass(frozen=True)
class CheckpointSummary:
    """What a checkpoint is, known without loading its weights."""

    path: Path
    model_type: str
    architecture: str
    num_parameters: int
    sample_rate: int
    vocab_size: int | None
    """Of the CTC head or of the text decoder; None without one."""
    min_samples: int
    """Samples of the shortest input."""
    frame_stride: int
    """Samples from one frame to the next."""
    hidden_size: int
    """Of the encoder."""
    num_layers: int
    """Of the encoder, and of the text decoder where there is one."""
    outputs: tuple[str, ...]
    """Names of the outputs that a `Label` step can ask for."""
    dtype: str
    """Of the stored weights; of most of them, where they differ."""
    weight_bytes: int
    receptive_samples: int
    """n samples give `(n - this) // frame_stride + 1` frames."""
    hidden_stride: int
    """Samples from one frame of `hidden_states` to the next."""
    writes_text: bool
    """Whether text comes from a decoder (`generate`) and not from frames."""
    activations_per_second: float
    """Numbers that a forward pass holds at once for a second of audio, as estimated from the widths of layers."""
    output_size: int
    """Width of `last_hidden_state`."""
    xvector_size: int | None
    """Width of a speaker's vector; None without a head for it."""
    labels: tuple[str, ...]
    """Names of the classes of a classification head; empty without one."""
    problem_type: str | None

    @property
    def frame_seconds(self) -> float:
        """Seconds from one frame to the next."""
        return self.frame_stride / self.sample_rate


@dataclass(frozen=True)
class LoadedCheckpoint:
    """A model with what stands before and behind it."""

    summary: CheckpointSummary
    model: Model
    feature_extractor: FeatureExtractor
    tokenizer: "TextOrCTCTokenizer | None"
    """None for a model that gives no text."""

    @property
    def sample_rate(self) -> int:
        """Samples a second that the model expects."""
        return self.feature_extractor.sampling_rate

    @property
    def text_tokenizer(self) -> Wav2Vec2CTCTokenizer:
        """The tokenizer of a model with a CTC head; one that writes text (`generate`) has another in `tokenizer`."""
        if not isinstance(self.tokenizer, Wav2Vec2CTCTokenizer):
            raise CheckpointError(f"{type(self.model).__name__} has no CTC head: use a checkpoint with one for text")
        return self.tokenizer


def read_config(folder: str | Path) -> dict[str, Any]:
    """Return what config.json holds."""
    folder = Path(folder)
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such folder, expected a checkpoint with config.json and model.safetensors")
    return read_json(folder / "config.json")


def encoder_types() -> list[str]:
    """Return the model types that can be the encoder of a speech-encoder-decoder."""
    return sorted(set(MODULES) - {COMPOSITE})


def decoder_types() -> list[str]:
    """Return the model types that can be its decoder."""
    return sorted(DECODERS)


def module_of(model_type: str) -> ModuleType:
    """Return the module of a kind of model."""
    known = {**MODULES, **DECODERS}
    if model_type not in known:
        raise CheckpointError(f"model_type is {model_type!r}, expected one of {', '.join(sorted(known))}")
    return importlib.import_module(f"raysp.models.{known[model_type]}")


def config_class(model_type: str) -> type[Config]:
    """Return the class of configurations of a kind of model."""
    for value in vars(module_of(model_type)).values():
        if isinstance(value, type) and issubclass(value, Config) and vars(value).get("model_type") == model_type:
            return value
    raise CheckpointError(f"raysp.models.{model_type}: no configuration of model_type {model_type!r}")


def architectures_of(model_type: str) -> dict[str, type[Model]]:
    """Return the classes of a kind of model that can be run, by name."""
    module = module_of(model_type)
    return {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, Model) and value.__module__ == module.__name__
        if value.forward is not nn.Module.forward
    }


def possible_outputs(cls: type[Model]) -> tuple[str, ...]:
    """Return the names of the outputs that a `Label` step can ask of a class: its head's, and embeddings."""
    return tuple(dict.fromkeys([*cls.outputs, "Embedding"]))


def model_class(folder: str | Path) -> type[Model]:
    """Return the class that config.json names.

    Raises:
        CheckpointError: The model type or the architecture is not one of this package.
    """
    config = read_config(folder)
    where = Path(folder) / "config.json"
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in MODULES:
        raise CheckpointError(
            f"{where}: model_type is {model_type!r}, expected one of {', '.join(sorted(MODULES))}: "
            "use a checkpoint of a supported model"
        )
    known = architectures_of(model_type)
    architectures = config.get("architectures") or [None]
    if not isinstance(architectures, list) or architectures[0] not in known:
        raise CheckpointError(
            f"{where}: architectures is {architectures!r}, expected [name] with one of {', '.join(sorted(known))}: "
            "use a checkpoint of such a model, or fine-tune this one first"
        )
    return known[architectures[0]]


def load_model(
    folder: str | Path,
    *,
    dtype: torch.dtype | str | None = None,
    device: torch.device | str | None = None,
    padding: Padding = "exact",
) -> Model:
    """Load the model of a checkpoint in eval mode; arguments as for `Model.from_pretrained`."""
    plain: dict[str, Any] = {"return_dict": True, "output_attentions": False, "output_hidden_states": False}
    cls = model_class(folder)
    model: Model = cls.from_pretrained(folder, dtype=dtype, device=device, padding=padding, strict=True, **plain)
    return model


def load_checkpoint(
    folder: str | Path,
    *,
    dtype: torch.dtype | str | None = None,
    device: torch.device | str | None = None,
    padding: Padding = "exact",
) -> LoadedCheckpoint:
    """Load the model of a checkpoint with its feature extractor and its tokenizer."""
    model = load_model(folder, dtype=dtype, device=device, padding=padding)
    has_text = "Transcript" in model.outputs
    return LoadedCheckpoint(
        check_checkpoint(folder),
        model,
        load_feature_extractor(folder),
        read_tokenizer(folder) if has_text else None,
    )


def load_feature_extractor(folder: str | Path) -> FeatureExtractor:
    """Load the feature extractor that stands before a checkpoint's model.

    Raises:
        CheckpointError: It is unknown, or does not make what the model takes.
    """
    folder = Path(folder)
    values, config = read_feature_extractor_config(folder), read_config(folder)
    takes_log_mels = config.get("model_type") == "wav2vec2-bert"
    expected = SeamlessM4TFeatureExtractor if takes_log_mels else Wav2Vec2FeatureExtractor
    kind = values.get("feature_extractor_type")
    if kind is None:  # before it was saved, the processor's name told
        kind = PROCESSORS.get(values.get("processor_class", ""), expected.__name__)
    if kind not in (expected.__name__, *(() if takes_log_mels else ("Wav2Vec2Processor",))):
        raise CheckpointError(
            f"{folder}: feature_extractor_type is {kind!r}, expected {expected.__name__!r} for model_type "
            f"{config.get('model_type')!r}: use the preprocessor_config.json that was saved with this model"
        )
    extractor = expected.from_pretrained(folder)
    if isinstance(extractor, SeamlessM4TFeatureExtractor):
        _check_width(folder, extractor, config.get("feature_projection_input_dim", 160))
    return extractor


def _check_width(folder: Path, extractor: SeamlessM4TFeatureExtractor, expected: object) -> None:
    width = extractor.num_mel_bins * extractor.stride
    if extractor.stride != MELS_PER_FRAME or width != expected:
        raise CheckpointError(
            f"{folder}: features are {extractor.num_mel_bins} mel bins by stride {extractor.stride}, the model takes "
            f"feature_projection_input_dim {expected!r} of stride {MELS_PER_FRAME}: correct the wrong one"
        )


def check_checkpoint(folder: str | Path) -> CheckpointSummary:
    """Check all that can be wrong with a checkpoint without reading its weights, and describe it.

    Raises:
        CheckpointError: Files are missing, damaged or unsafe, or do not fit each other.
    """
    folder = Path(folder)
    cls = model_class(folder)
    headers = read_headers(folder)
    model = _built_without_weights(cls, folder, len(headers))
    expected = {name: tuple(value.shape) for name, value in model.stored_weights().items()}
    found = {name: header.shape for name, header in model.current_names(headers).items()}
    optional = [name for name in {*found, *expected} if model._may_differ(name, strict=True)]
    check_names_and_shapes(folder, found, expected, optional)
    config: Any = model.config
    has_text = "Transcript" in cls.outputs
    vocab_size = _checked_vocab_size(folder, config) if has_text else None
    encoder = getattr(config, "encoder", config)
    return CheckpointSummary(
        path=folder,
        model_type=config.model_type,
        architecture=cls.__name__,
        num_parameters=sum(header.num_elements for header in headers.values()),
        sample_rate=_sample_rate(folder),
        vocab_size=vocab_size,
        min_samples=model.min_samples,
        frame_stride=model.frame_stride,
        hidden_size=encoder.hidden_size,
        num_layers=_num_layers(config),
        outputs=possible_outputs(cls),
        dtype=_main_dtype(headers),
        weight_bytes=sum(header.num_bytes for header in headers.values()),
        receptive_samples=model.receptive_samples,
        hidden_stride=model.hidden_stride,
        writes_text=config.model_type == COMPOSITE,
        activations_per_second=_activations_per_second(encoder, _sample_rate(folder), model.hidden_stride),
        output_size=model.output_size,
        xvector_size=config.xvector_output_dim if "Embedding" in cls.outputs and cls is not _base(model) else None,
        labels=_labels(config) if {"Classes", "Segments"} & {*cls.outputs} else (),
        problem_type=config.problem_type,
    )


def _activations_per_second(config: Any, sample_rate: int, hidden_stride: int) -> float:  # noqa: ANN401 - of encoders
    """Add up what is alive at the widest place of front end and layers: some tensors of input, inner and output."""
    widest: float = sample_rate / hidden_stride * (8 * config.hidden_size + 2 * config.intermediate_size)
    rate = float(sample_rate)
    for width, stride in zip(getattr(config, "conv_dim", ()), getattr(config, "conv_stride", ()), strict=True):
        rate /= stride
        widest = max(widest, 3 * rate * width)
    return widest


def _base(model: Model) -> type[Model]:
    return type(model.base_model)


def _labels(config: Any) -> tuple[str, ...]:  # noqa: ANN401 - of any model
    names = config.id2label or {index: f"LABEL_{index}" for index in range(config.num_labels)}
    return tuple(names[index] for index in range(config.num_labels))


def checkpoint_files(folder: str | Path) -> list[Path]:
    """Return the files that determine a label: configuration, weights, processor, tokenizer."""
    folder = Path(folder)
    return sorted([*weight_files(folder), *(folder / name for name in LABEL_FILES if (folder / name).is_file())])


def _built_without_weights(cls: type[Model], folder: Path, num_weights: int) -> Model:
    config: Any = cls.config_class.from_pretrained(folder)
    where = folder / "config.json"
    if _num_layers(config) > num_weights:
        raise CheckpointError(
            f"{where}: num_hidden_layers is {_num_layers(config)}, but the checkpoint has {num_weights} weights: "
            "use the config.json that was saved with these weights"
        )
    try:
        with torch.device("meta"):
            return cls(config)
    except (RuntimeError, TypeError, OverflowError) as error:
        reason = str(error).partition("\n")[0]
        raise CheckpointError(f"{where}: no model can be built from it: {reason}: copy the file again") from error


def _num_layers(config: Any) -> int:  # noqa: ANN401 - of any model
    decoder = getattr(config, "decoder", None)
    if decoder is None:
        return int(config.num_hidden_layers)
    of_decoder = getattr(decoder, "decoder_layers", None) or decoder.num_hidden_layers
    return int(config.encoder.num_hidden_layers + of_decoder)


def _checked_vocab_size(folder: Path, config: Any) -> int:  # noqa: ANN401 - of any model that gives text
    """Return the number of classes that text is made of, which the tokenizer must know."""
    decoder = getattr(config, "decoder", None)
    if decoder is None:
        _check_tokenizer(folder, config)
        return int(config.vocab_size)
    tokenizer = read_tokenizer(folder)
    highest = max(tokenizer.get_vocab().values(), default=-1)
    if highest >= decoder.vocab_size:
        raise CheckpointError(
            f"{folder}: tokenizer has a token of id {highest}, the decoder has {decoder.vocab_size} (config.json, "
            "decoder.vocab_size): use the tokenizer that was saved with these weights"
        )
    return int(decoder.vocab_size)


def _sample_rate(folder: Path) -> int:
    """Return the rate that the feature extractor expects, which nothing else may contradict."""
    rate = read_feature_extractor_config(folder).get("sampling_rate", 16000)
    load_feature_extractor(folder)
    if type(rate) is not int or not 0 < rate <= MAX_SAMPLE_RATE:
        raise CheckpointError(
            f"{folder}: sampling_rate of the feature extractor is {rate!r}, expected samples a second such as 16000"
        )
    for name in ("sampling_rate", "sample_rate"):
        other = read_config(folder).get(name, rate)
        if other != rate:
            raise CheckpointError(
                f"{folder}: config.json says {name} {other!r}, the feature extractor {rate!r}: correct the wrong one"
            )
    return rate


def _check_tokenizer(folder: Path, config: Any) -> None:  # noqa: ANN401 - of any model with a CTC head
    """Check that each class of the head is a token and that the blank is the padding token."""
    if not (folder / "vocab.json").is_file():
        raise CheckpointError(
            f"{folder}: vocab.json not found, expected the tokens of the head: complete the checkpoint"
        )
    tokenizer = Wav2Vec2CTCTokenizer.from_pretrained(folder)
    if not tokenizer.encoder:
        raise CheckpointError(
            f"{folder}: vocab.json holds the languages {', '.join(sorted(tokenizer.vocab))} and tokenizer_config.json "
            "has no target_lang: set it to the language of this head"
        )
    size = config.vocab_size
    named = {tokenizer.get_vocab()[token] for token in tokenizer.all_special_tokens}
    beyond = {index for index in tokenizer.get_vocab().values() if index >= size} - (named - set(tokenizer.decoder))
    lacking = set(range(size)) - set(tokenizer.get_vocab().values())
    if beyond or lacking:
        raise CheckpointError(
            f"{folder}: tokenizer has {len(tokenizer)} tokens, the head has {size} classes (config.json, vocab_size): "
            f"ids without a class {_some(beyond)}, classes without a token {_some(lacking)}: "
            "use the vocab.json that was saved with these weights"
        )
    if tokenizer.pad_token_id != config.pad_token_id:
        raise CheckpointError(
            f"{folder}: tokenizer's pad_token {tokenizer.pad_token!r} is id {tokenizer.pad_token_id}, config.json has "
            f"pad_token_id {config.pad_token_id!r}: both are the CTC blank, correct the wrong one"
        )


def _some(ids: set[int]) -> str:
    shown = ", ".join(map(str, sorted(ids)[:5]))
    return (shown + (f" and {len(ids) - 5} more" if len(ids) > 5 else "")) or "none"


def _main_dtype(headers: Mapping[str, TensorHeader]) -> str:
    sizes: dict[str, int] = {}
    for header in headers.values():
        name = str(header.dtype).removeprefix("torch.")
        sizes[name] = sizes.get(name, 0) + header.num_elements
    return max(sizes, key=lambda name: sizes[name])
