"""Checkpoint folders: which model they hold, whether they are whole and safe, and loading them.

`model_type` and `architectures` of config.json name a class of this package; nothing else is ever imported, so code
that comes with a checkpoint (`auto_map`) has no effect. A new architecture is one module and one line of `MODULES`.
"""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from raysp.errors import CheckpointError
from raysp.models.configuration import read_json
from raysp.models.modeling import Model, Padding
from raysp.models.processors import Wav2Vec2CTCTokenizer, Wav2Vec2FeatureExtractor, read_feature_extractor_config
from raysp.models.weights import TensorHeader, check_names_and_shapes, read_headers, weight_files

MODULES = {"unispeech": "unispeech"}  # model_type -> module of this package

LABEL_FILES = (
    "config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer_config.json",
    "vocab.json",
    "added_tokens.json",
    "special_tokens_map.json",
    "tokenizer.json",
)
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
    """Of the CTC head; None without one."""
    min_samples: int
    """Samples of the shortest input."""
    frame_stride: int
    """Samples from one frame to the next."""
    hidden_size: int
    num_layers: int
    outputs: tuple[str, ...]
    """Names of the outputs that a `Label` step can ask for."""
    dtype: str
    """Of the stored weights; of most of them, where they differ."""
    weight_bytes: int


@dataclass(frozen=True)
class LoadedCheckpoint:
    """A model with what stands before and behind it."""

    model: Model
    feature_extractor: Wav2Vec2FeatureExtractor
    tokenizer: Wav2Vec2CTCTokenizer | None
    """None for a model without a CTC head."""

    @property
    def sample_rate(self) -> int:
        """Samples a second that the model expects."""
        return self.feature_extractor.sampling_rate

    @property
    def text_tokenizer(self) -> Wav2Vec2CTCTokenizer:
        """The tokenizer of a model that gives text."""
        if self.tokenizer is None:
            raise CheckpointError(f"{type(self.model).__name__} has no CTC head: use a checkpoint with one for text")
        return self.tokenizer


def read_config(folder: str | Path) -> dict[str, Any]:
    """Return what config.json holds."""
    folder = Path(folder)
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such folder, expected a checkpoint with config.json and model.safetensors")
    return read_json(folder / "config.json")


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
    module = importlib.import_module(f"raysp.models.{MODULES[model_type]}")
    known = {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, Model) and value.__module__ == module.__name__
        if "forward" in vars(value)
    }
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
    return model_class(folder).from_pretrained(folder, dtype=dtype, device=device, padding=padding, **plain)


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
        model,
        Wav2Vec2FeatureExtractor.from_pretrained(folder),
        Wav2Vec2CTCTokenizer.from_pretrained(folder) if has_text else None,
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
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    optional = [name for name in {*headers, *expected} if cls.is_training_only(name)]
    check_names_and_shapes(folder, {name: header.shape for name, header in headers.items()}, expected, optional)
    config: Any = model.config
    has_text = "Transcript" in cls.outputs
    if has_text:
        _check_tokenizer(folder, config)
    return CheckpointSummary(
        path=folder,
        model_type=config.model_type,
        architecture=cls.__name__,
        num_parameters=sum(header.num_elements for header in headers.values()),
        sample_rate=_sample_rate(folder),
        vocab_size=config.vocab_size if has_text else None,
        min_samples=model.min_samples,
        frame_stride=model.frame_stride,
        hidden_size=config.hidden_size,
        num_layers=config.num_hidden_layers,
        outputs=cls.outputs,
        dtype=_main_dtype(headers),
        weight_bytes=sum(header.num_bytes for header in headers.values()),
    )


def checkpoint_files(folder: str | Path) -> list[Path]:
    """Return the files that determine a label: configuration, weights, processor, tokenizer."""
    folder = Path(folder)
    return sorted([*weight_files(folder), *(folder / name for name in LABEL_FILES if (folder / name).is_file())])


def _built_without_weights(cls: type[Model], folder: Path, num_weights: int) -> Model:
    config: Any = cls.config_class.from_pretrained(folder)
    where = folder / "config.json"
    if config.num_hidden_layers > num_weights:
        raise CheckpointError(
            f"{where}: num_hidden_layers is {config.num_hidden_layers}, but the checkpoint has {num_weights} weights: "
            "use the config.json that was saved with these weights"
        )
    try:
        with torch.device("meta"):
            return cls(config)
    except (RuntimeError, TypeError, OverflowError) as error:
        reason = str(error).partition("\n")[0]
        raise CheckpointError(f"{where}: no model can be built from it: {reason}: copy the file again") from error


def _sample_rate(folder: Path) -> int:
    """Return the rate that the feature extractor expects, which nothing else may contradict."""
    rate = read_feature_extractor_config(folder).get("sampling_rate", 16000)
    Wav2Vec2FeatureExtractor.from_pretrained(folder)
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
