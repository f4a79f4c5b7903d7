"""Kind of a checkpoint of transformers: its configuration, class and front end, read without running its code."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import transformers
from transformers.models.auto import modeling_auto

from raysp.backends import hf_installed
from raysp.capabilities import Capability
from raysp.checkpoints.contents import refuse_adapter
from raysp.errors import CheckpointError
from raysp.models.base.configuration import read_json
from raysp.models.registry import PRETRAINING

Read = TypeVar("Read")

HEADS = {
    Capability.TEXT_DECODER: modeling_auto.MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES,
    Capability.CTC: modeling_auto.MODEL_FOR_CTC_MAPPING_NAMES,
    Capability.CLASSES: modeling_auto.MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES,
    Capability.FRAME_CLASSES: modeling_auto.MODEL_FOR_AUDIO_FRAME_CLASSIFICATION_MAPPING_NAMES,
    Capability.XVECTOR: modeling_auto.MODEL_FOR_AUDIO_XVECTOR_MAPPING_NAMES,
}
"""Class names by model type, of the auto classes."""
DIRECT: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
"""Options of `from_pretrained`: no code of a checkpoint is run, and nothing else is fetched."""
PROBED_SECONDS = (1, 2)


@dataclass(frozen=True)
class Kind:
    """Configuration and class of a checkpoint."""

    config: Any
    model_class: Any
    head: Capability | None
    """Capability of its head; None: it has no head."""

    @property
    def model_type(self) -> str:
        """Model type of the configuration."""
        return str(self.config.model_type)


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
    refuse_adapter(folder)
    if values.get("quantization_config"):
        raise CheckpointError(f"{where}: quantization_config is set; use the checkpoint with its original weights")
    name, *others = values.get("architectures") or [None]
    if str(name).endswith(PRETRAINING):
        name = modeling_auto.MODEL_MAPPING_NAMES.get(model_type, name)
    heads = [head for head, names in HEADS.items() if name is not None and names.get(model_type) == name]
    is_encoder = modeling_auto.MODEL_MAPPING_NAMES.get(model_type) == name and "conv_kernel" in values
    if others or not (heads or is_encoder):
        known = [names[model_type] for names in HEADS.values() if model_type in names]
        raise CheckpointError(
            f"{where}: architectures is {values.get('architectures')!r}, expected one of "
            f"{', '.join(known) or 'the speech models of transformers'}"
        )
    config = read(folder, lambda: transformers.AutoConfig.from_pretrained(folder, **DIRECT))
    return Kind(config, read(folder, lambda: getattr(transformers, str(name))), heads[0] if heads else None)


def read(folder: Path, reader: Callable[[], Read]) -> Read:
    """Call a function of transformers that reads a folder, and return its result.

    Raises:
        CheckpointError: it raises any error; with its first line and that of its cause.
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
        raise CheckpointError(f"{folder}: transformers {hf_installed.version()} cannot read it ({reason})") from error


def _first_line(error: BaseException) -> str:
    """Return class and first line of an error."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


def extractor_of(folder: Path) -> Any:  # noqa: ANN401 - a class of transformers
    """Return the feature extractor.

    Raises:
        CheckpointError: it cannot be read, or draws random numbers.
    """
    extractor = read(folder, lambda: transformers.AutoFeatureExtractor.from_pretrained(folder, **DIRECT))
    if getattr(extractor, "dither", 0.0):
        raise CheckpointError(
            f"{folder}: the feature extractor adds noise (dither={extractor.dither}), so labels would differ from run "
            "to run; set dither to 0 in preprocessor_config.json"
        )
    return extractor


def features_of(extractor: Any, wave: np.ndarray) -> Mapping[str, Any]:  # noqa: ANN401
    """Return the inputs of a model for one recording, tensors with one row."""
    found: Mapping[str, Any] = extractor(wave, sampling_rate=extractor.sampling_rate, return_tensors="pt")
    return found


def fixed_samples(folder: Path, extractor: Any) -> int | None:  # noqa: ANN401
    """Return the samples to which the feature extractor pads or cuts every recording; None: lengths vary.

    Raises:
        CheckpointError: the length is fixed, but unknown.
    """
    rate: int = extractor.sampling_rate
    noise = np.random.default_rng(0).standard_normal(PROBED_SECONDS[-1] * rate).astype(np.float32)
    name = extractor.model_input_names[0]
    waves = [noise[: seconds * rate] for seconds in PROBED_SECONDS]
    if len({features_of(extractor, wave)[name].shape for wave in waves}) > 1:
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
