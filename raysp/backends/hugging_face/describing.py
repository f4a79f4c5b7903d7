"""Description of a checkpoint of transformers: configuration, class and front end, read without weights or its code."""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import numpy as np
import torch
import transformers
from transformers.models.auto import modeling_auto

from raysp.backends import hf_installed
from raysp.backends.hugging_face.padded_batches import why_alone
from raysp.backends.hugging_face.recogniser_families import FAMILIES, REFUSED, Family
from raysp.capabilities import Capability
from raysp.checkpoints.contents import announced, refuse_adapter
from raysp.errors import CheckpointError
from raysp.models.base.configuration import read_json
from raysp.models.base.modeling import HEAD_PARTS
from raysp.models.base.weights import read_headers
from raysp.models.encoder.heads import tdnn_output_frames
from raysp.models.encoder.languages import check_adapter
from raysp.models.labelled_passes import CheckpointSummary
from raysp.models.loading import (
    EXTRACTORS,
    announced_adapter,
    checked_rate,
    labels_of,
    stored,
)
from raysp.models.registry import PRETRAINING
from raysp.models.tokenizers.head_tokens import check_ids, check_tokens

Read = TypeVar("Read")

LANGUAGE_MODELS = {
    name: cls
    for kind in ("SEQ_TO_SEQ_CAUSAL_LM", "MULTIMODAL_LM")
    for name, cls in getattr(modeling_auto, f"MODEL_FOR_{kind}_MAPPING_NAMES", {}).items()
    if name in FAMILIES
}
"""Language models that read recordings."""
TRANSDUCERS: Mapping[str, str] = getattr(modeling_auto, "MODEL_FOR_RNNT_MAPPING_NAMES", {})
HEADS = {
    Capability.TEXT_DECODER: {**LANGUAGE_MODELS, **modeling_auto.MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES},
    Capability.TRANSDUCER: {name: cls for name, cls in TRANSDUCERS.items() if name in FAMILIES},
    Capability.CTC: modeling_auto.MODEL_FOR_CTC_MAPPING_NAMES,
    Capability.CLASSES: modeling_auto.MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES,
    Capability.FRAME_CLASSES: modeling_auto.MODEL_FOR_AUDIO_FRAME_CLASSIFICATION_MAPPING_NAMES,
    Capability.XVECTOR: modeling_auto.MODEL_FOR_AUDIO_XVECTOR_MAPPING_NAMES,
}
"""Class names by model type, of the auto classes."""
DIRECT: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
"""Options of `from_pretrained`: no code of a checkpoint is run, and nothing else is fetched."""
PROBED_SECONDS = (1, 2)
RENAMED = {"Qwen2_5OmniModel": "Qwen2_5OmniForConditionalGeneration"}
"""Names of classes in published checkpoints that transformers has under other names."""


@dataclass(frozen=True)
class Kind:
    """Configuration and class of a checkpoint."""

    config: Any
    """That of the part that labels."""
    model_class: Any
    head: Capability | None
    """Capability of its head; None: it has no head."""
    whole: Any
    """Configuration of the checkpoint, which may have more parts."""

    @property
    def model_type(self) -> str:
        """Model type of the checkpoint."""
        return str(self.whole.model_type)

    @property
    def family(self) -> Family:
        """Family of a recogniser."""
        return FAMILIES[self.model_type]

    @property
    def is_part(self) -> bool:
        """Whether the checkpoint has other parts."""
        return self.config is not self.whole


def kind_of(folder: Path) -> Kind:
    """Read config.json, and find the class that it names among those of the auto classes for speech.

    Raises:
        CheckpointError: transformers has no such model type, or its class is not for speech; or the checkpoint needs
            other weights than its own.
    """
    values = read_json(folder / "config.json")
    where, model_type = folder / "config.json", values.get("model_type")
    if not isinstance(model_type, str) or not hf_installed.reads(model_type):
        raise CheckpointError(
            f"{where}: model_type is {model_type!r}, which transformers {hf_installed.version()} does not read; try a "
            "newer version of transformers"
        )
    if model_type in REFUSED:
        raise CheckpointError(f"{where}: model type {model_type!r}: {REFUSED[model_type]}; use another recogniser")
    refuse_adapter(folder)
    if values.get("quantization_config"):
        raise CheckpointError(f"{where}: quantization_config is set; use the checkpoint with its original weights")
    name, *more_names = values.get("architectures") or [None]
    name = RENAMED.get(name, name)
    if str(name).endswith(PRETRAINING):
        name = modeling_auto.MODEL_MAPPING_NAMES.get(model_type, name)
    heads = [head for head, names in HEADS.items() if name is not None and names.get(model_type) == name]
    is_encoder = modeling_auto.MODEL_MAPPING_NAMES.get(model_type) == name and "conv_kernel" in values
    if more_names or not (heads or is_encoder):
        expected = [names[model_type] for names in HEADS.values() if model_type in names]
        raise CheckpointError(
            f"{where}: architectures is {values.get('architectures')!r}, expected one of "
            f"{', '.join(expected) or 'the speech models of transformers'}"
        )
    config = read(folder, lambda: transformers.AutoConfig.from_pretrained(folder, **DIRECT))
    thinker = FAMILIES[model_type].thinker if model_type in FAMILIES else ""
    part, name = (config.thinker_config, thinker) if thinker else (config, name)
    return Kind(part, read(folder, lambda: getattr(transformers, str(name))), heads[0] if heads else None, config)


def read(folder: Path, reader: Callable[[], Read], library: str = "", advice: str = "") -> Read:
    """Call a function of transformers, or of another library, that reads a folder, and return its result.

    Raises:
        CheckpointError: it raises any error; with its first line and the first line of its cause.
    """
    try:
        return reader()
    except CheckpointError:
        raise
    except Exception as error:  # transformers raises errors of many classes
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        reason = _first_line(error) if cause is error else f"{_first_line(error)}; caused by {_first_line(cause)}"
        library = library or f"transformers {hf_installed.version()}"
        raise CheckpointError(f"{folder}: {library} cannot read it ({reason}){advice}") from error


def _first_line(error: BaseException) -> str:
    """Return class and first line of an error."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


def extractor_of(folder: Path) -> Any:  # noqa: ANN401 - a class of transformers
    """Return the feature extractor.

    Raises:
        CheckpointError: it cannot be read, has no sample rate, or draws random numbers.
    """
    extractor = read(folder, lambda: transformers.AutoFeatureExtractor.from_pretrained(folder, **DIRECT))
    check_extractor(folder, extractor)
    return extractor


def check_extractor(folder: Path, extractor: Any, *, may_add_noise: bool = False) -> None:  # noqa: ANN401
    """Raise if a feature extractor has no sample rate, or draws random numbers.

    Raises:
        CheckpointError: with the setting.
    """
    checked_rate(folder, getattr(extractor, "sampling_rate", None))
    if not may_add_noise and getattr(extractor, "dither", None):
        raise CheckpointError(
            f"{folder}: the feature extractor adds noise (dither={extractor.dither}), so labels would differ from run "
            "to run; set dither to 0 in preprocessor_config.json"
        )


def features_of(extractor: Any, wave: np.ndarray, *, has_mask: bool = False) -> Mapping[str, Any]:  # noqa: ANN401
    """Return the inputs of a model for one recording, tensors with one row; `has_mask`: with a mask, if it has one."""
    mask = {"return_attention_mask": True} if has_mask else {}
    inputs: Mapping[str, Any] = extractor(wave, sampling_rate=extractor.sampling_rate, return_tensors="pt", **mask)
    return inputs


def noise(rate: int, seconds: int) -> np.ndarray:
    """Return a recording by which processors are tried."""
    return np.random.default_rng(0).standard_normal(seconds * rate, np.float32)


def fixed_samples(folder: Path, extractor: Any) -> int | None:  # noqa: ANN401
    """Return the samples to which the feature extractor pads or cuts every recording; None: lengths vary.

    Raises:
        CheckpointError: the length is fixed, but unknown.
    """
    rate: int = extractor.sampling_rate
    name = extractor.model_input_names[0]
    if len({features_of(extractor, noise(rate, seconds))[name].shape for seconds in PROBED_SECONDS}) > 1:
        return None
    samples: int | None = getattr(extractor, "n_samples", None)
    if samples is not None:
        return samples
    if isinstance(extractor, transformers.ASTFeatureExtractor):  # frames of 25 ms every 10 ms
        frames: int = extractor.max_length
        return (frames - 1) * rate // 100 + rate // 40
    raise CheckpointError(
        f"{folder}: {type(extractor).__name__} cuts recordings at a length that raysp does not know; this checkpoint "
        "cannot be used"
    )


WHISPER = "whisper"
OF_FRAMES = (Capability.CTC, Capability.FRAME_CLASSES)
FRAME_FUNCTIONS = ("_get_feat_extract_output_lengths", "_get_subsampling_output_length")
"""Names of the functions of classes that return numbers of frames from numbers of features."""
TENTHS = 10
WRITTEN_TOGETHER = 8
"""Padded windows whose texts are written together: a step of the decoder reads all of its weights for each batch."""


@dataclass(frozen=True)
class Frames:
    """Length and stride of a model's frames, in samples."""

    receptive_samples: int
    stride: int
    are_known: bool = True
    """Whether frames are those of the model; otherwise they only measure the parts of longer recordings."""


def describe(folder: Path) -> CheckpointSummary:
    """Check a checkpoint and return its description.

    Raises:
        CheckpointError: transformers does not read it, or raysp cannot label with it.
    """
    kind, extractor = kind_of(folder), extractor_of(folder)
    headers, rate = read_headers(folder), extractor.sampling_rate
    fixed = fixed_samples(folder, extractor)
    frames = _frames(folder, kind, extractor, fixed)
    _check(folder, kind, frames, fixed)
    config, [*_, encoder] = kind.config, parts_of(kind.config)
    adapter = announced_adapter(folder) if kind.head is Capability.CTC else None
    hidden, layers = int(encoder.hidden_size), int(encoder.num_hidden_layers)
    heads = () if kind.head is None else (kind.head,)
    # Layers of an encoder with a configuration of its own may have other frames than its output.
    has_hidden_states = frames.are_known and encoder is config
    return CheckpointSummary(
        path=folder,
        model_type=kind.model_type,
        architecture=kind.model_class.__name__,
        **stored(headers),
        sample_rate=rate,
        vocab_size=_vocab_size(folder, kind, adapter),
        min_samples=_min_samples(kind, frames, rate),
        frame_stride=frames.stride,
        hidden_size=hidden,
        num_layers=layers + int(getattr(config, "decoder_layers", 0) or 0),
        gives=(*heads, Capability.HIDDEN_STATES) if has_hidden_states else heads,
        receptive_samples=frames.receptive_samples,
        hidden_stride=frames.stride if has_hidden_states else 0,
        activations_per_second=_activations_per_second(encoder, rate, frames),
        output_size=hidden,
        xvector_size=config.xvector_output_dim if kind.head is Capability.XVECTOR else None,
        labels=labels_of(config) if kind.head in (Capability.CLASSES, Capability.FRAME_CLASSES) else (),
        problem_type=config.problem_type,
        num_hidden_states=layers + 1 if has_hidden_states else 0,
        backend="transformers",
        unused=() if kind.head else tuple(sorted({name.partition(".")[0] for name in headers} & HEAD_PARTS)),
        takes_padding=fixed is not None or not why_alone(kind.model_type),
        padded_samples=fixed or 0,
        windows_together=WRITTEN_TOGETHER if fixed and kind.head is Capability.TEXT_DECODER else 1,
        language=announced(folder) if kind.head is Capability.CTC else None,
        adapter=None if adapter is None else adapter.name,
        max_samples=fixed,
    )


def _frames(folder: Path, kind: Kind, extractor: Any, fixed: int | None) -> Frames:  # noqa: ANN401
    """Return the frames of a class that has a function for them, of Whisper, or nominal ones of 10 ms."""
    rate: int = extractor.sampling_rate
    if kind.model_type == WHISPER and fixed is not None:
        stride = fixed // kind.config.max_source_positions
        return Frames(stride, stride)
    names = [name for name in FRAME_FUNCTIONS if hasattr(kind.model_class, name)]
    if kind.head is Capability.TEXT_DECODER or kind.model_type in EXTRACTORS or not names:
        return Frames(rate // 100, rate // 100, are_known=False)

    taken = kind.model_class.main_input_name
    if extractor.model_input_names[0] != taken:
        raise CheckpointError(
            f"{folder}: {type(extractor).__name__} makes {extractor.model_input_names[0]}, expected the {taken} of "
            f"{kind.model_class.__name__}: use the processor_config.json that was saved with these weights"
        )

    def count(samples: int) -> int:
        features = features_of(extractor, np.zeros(samples, np.float32))[taken]
        length = torch.tensor(features.shape[1 if extractor.model_input_names[0] == "input_features" else -1])
        return int(getattr(kind.model_class, names[0])(SimpleNamespace(config=kind.config), length))

    # Frames begin at equal distances: those that the second and third second of a recording add give all others.
    first = count(rate)
    begin, end = (bisect_left(range(2 * rate), first + more, rate, key=count) for more in (1, 2))
    return Frames(begin - first * (end - begin), end - begin)


def _check(folder: Path, kind: Kind, frames: Frames, fixed: int | None) -> None:
    """Raise CheckpointError if raysp cannot label with a kind of model."""
    where, name = folder / "config.json", kind.model_class.__name__
    if kind.head is Capability.TEXT_DECODER and kind.model_type not in hf_installed.WRITERS:
        raise CheckpointError(
            f"{where}: {name} writes text, and of the text decoders of transformers raysp runs those of "
            f"{', '.join(sorted({*hf_installed.WRITERS, *FAMILIES}))}"
        )
    if kind.head in OF_FRAMES and not frames.are_known:
        raise CheckpointError(f"{where}: the frame rate of {name} is unknown; use a model that reads waveforms")
    if getattr(kind.config, "add_adapter", False):
        raise CheckpointError(f"{where}: add_adapter changes the number of frames, which raysp does not support here")
    if kind.model_type == WHISPER and fixed != frames.stride * kind.config.max_source_positions:
        raise CheckpointError(
            f"{folder}: the feature extractor pads to {fixed} samples, expected a multiple of "
            f"{kind.config.max_source_positions} positions; use the preprocessor_config.json of this model"
        )


def _min_samples(kind: Kind, frames: Frames, rate: int) -> int:
    if not frames.are_known:
        return rate // TENTHS
    if kind.head is not Capability.XVECTOR:
        squeezed = getattr(kind.config, "squeeze_factor", 1)
        return frames.receptive_samples + (int(squeezed) - 1) * frames.stride
    missing = tdnn_output_frames(0, kind.config.tdnn_kernel, kind.config.tdnn_dilation)
    return frames.receptive_samples + (1 - missing) * frames.stride  # two frames have a deviation


def _vocab_size(folder: Path, kind: Kind, adapter: Path | None) -> int | None:
    """Return the size of the vocabulary after a check of the tokenizer; None for a model without text."""
    if kind.head not in (Capability.CTC, Capability.TEXT_DECODER):
        return None
    size = int(kind.config.vocab_size) if adapter is None else check_adapter(kind.config, adapter)
    if kind.head is Capability.CTC:
        check_tokens(folder, kind.config, size)
        return size
    tokenizer = read(folder, lambda: transformers.AutoTokenizer.from_pretrained(folder, **DIRECT))
    check_ids(folder, tokenizer.get_vocab().values(), size, "vocab_size")
    return size


def _activations_per_second(config: Any, rate: int, frames: Frames) -> float:  # noqa: ANN401
    """Estimate the values held at the widest place: a layer of the encoder, or the first convolution."""
    widest = float(rate / frames.stride * width(config))
    if hasattr(config, "conv_dim"):
        widest = max(widest, 3 * rate / config.conv_stride[0] * config.conv_dim[0])
    return widest


def parts_of(config: Any) -> Iterator[Any]:  # noqa: ANN401
    """Yield the configurations of a model and of its parts."""
    yield config
    for name in config.sub_configs:
        if (part := getattr(config, name, None)) is not None:
            yield part


def width(config: Any) -> int:  # noqa: ANN401
    """Estimate the values of a frame at the widest place of a layer."""
    hidden = int(getattr(config, "hidden_size", 0) or 0)
    inner = getattr(config, "intermediate_size", None) or getattr(config, "encoder_ffn_dim", None) or 4 * hidden
    return 8 * hidden + 2 * int(inner)
