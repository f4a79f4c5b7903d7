"""Description of a recogniser of transformers that is prompted through its processor, read without weights."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import transformers

from raysp.backends.hugging_face.describing import DIRECT, TENTHS, Kind, kind_of, read, refuse_noise, sample_rate_of
from raysp.backends.hugging_face.padded_batches import why_alone
from raysp.backends.hugging_face.recogniser_families import FAMILIES, Family, TextRequest
from raysp.capabilities import Capability
from raysp.errors import CheckpointError
from raysp.models.base.weights import read_headers
from raysp.models.labelled_passes import CheckpointSummary
from raysp.models.loading import main_dtype

PROBED_SECONDS = (1, 2)
USUAL_FRAMES = 50
"""Frames a second of most encoders, by which memory is estimated."""
DEPENDENT = {"repetition_penalty": (None, 1.0), "no_repeat_ngram_size": (None, 0)}
"""Settings of generation that read the prompt, which padding is a part of, with the values that they have if unset."""


def is_recogniser(kind: Kind) -> bool:
    """Return whether a checkpoint is prompted through its processor."""
    return kind.head is Capability.TEXT_DECODER and kind.model_type in FAMILIES


def processor_of(folder: Path, family: Family) -> Any:  # noqa: ANN401 - a class of transformers
    """Return the processor, which pads prompts on the left.

    Raises:
        CheckpointError: it cannot be read, or draws random numbers.
    """
    processor = read(folder, lambda: transformers.AutoProcessor.from_pretrained(folder, **DIRECT))
    if not family.has_seeded_noise:
        refuse_noise(folder, extractor_in(processor))
    processor.tokenizer.padding_side = "left"
    return processor


def extractor_in(processor: Any) -> Any:  # noqa: ANN401
    """Return the feature extractor of a processor."""
    return getattr(processor, "feature_extractor", None) or processor.audio_processor


def describe(folder: Path) -> CheckpointSummary:
    """Check a checkpoint and return its description.

    Raises:
        CheckpointError: transformers does not read it, or its parts do not fit.
    """
    kind = kind_of(folder)
    family = FAMILIES[kind.model_type]
    processor = processor_of(folder, family)
    headers, rate = read_headers(folder), sample_rate_of(folder, extractor_in(processor))
    config, languages = kind.config, tuple(sorted(family.languages(processor)))
    text = config.get_text_config(decoder=True)
    name = kind.model_class.__name__
    needs = f"{folder}: {name} does not detect languages: use a checkpoint that does" if family.needs_language else ""
    return CheckpointSummary(
        path=folder,
        model_type=kind.model_type,
        architecture=name,
        num_parameters=sum(header.num_elements for header in headers.values()),
        sample_rate=rate,
        vocab_size=_vocab_size(folder, text, processor),
        min_samples=rate // TENTHS,
        frame_stride=rate // 100,
        hidden_size=int(text.hidden_size),
        num_layers=sum(int(getattr(one, "num_hidden_layers", 0) or 0) for one in _parts(config)),
        gives=(Capability.TEXT_DECODER,),
        dtype=main_dtype(headers),
        weight_bytes=sum(header.num_bytes for header in headers.values()),
        receptive_samples=rate // 100,
        activations_per_second=float(USUAL_FRAMES * max(map(_width, _parts(config)))),
        backend="transformers",
        padded_samples=_padded_samples(processor, family, languages, rate),
        languages=languages,
        detects=family.language_of is not None,
        contradiction=needs,
        takes=family.options(processor),
        alone=_why_alone(folder, kind.model_type),
        max_samples=None if family.max_seconds is None else round(family.max_seconds * rate),
    )


def _parts(config: Any) -> Iterator[Any]:  # noqa: ANN401
    """Yield the configurations of a model and of its parts."""
    yield config
    for name in config.sub_configs:
        if (part := getattr(config, name, None)) is not None:
            yield part


def _width(config: Any) -> int:  # noqa: ANN401
    """Estimate the values of a frame at the widest place of a layer."""
    hidden = int(getattr(config, "hidden_size", 0) or 0)
    inner = getattr(config, "intermediate_size", None) or getattr(config, "encoder_ffn_dim", None) or 4 * hidden
    return 8 * hidden + 2 * int(inner)


def _vocab_size(folder: Path, text: Any, processor: Any) -> int:  # noqa: ANN401
    size, highest = int(text.vocab_size), max(processor.tokenizer.get_vocab().values(), default=-1)
    if highest >= size:
        raise CheckpointError(
            f"{folder}: the tokenizer's highest token id is {highest}, the model has {size} tokens (config.json, "
            "vocab_size): use the tokenizer that was saved with these weights"
        )
    return size


def _padded_samples(processor: Any, family: Family, languages: tuple[str, ...], rate: int) -> int:  # noqa: ANN401
    """Return the length to which the processor pads shorter recordings; 0 if it does not."""
    noise = np.random.default_rng(0).standard_normal(PROBED_SECONDS[-1] * rate).astype(np.float32)
    request = TextRequest(language=languages[0] if family.needs_language else None)
    inputs = [family.inputs(processor, noise[: seconds * rate], request) for seconds in PROBED_SECONDS]
    shapes = [max((value.shape for value in of_wave.values() if _is_audio(value)), key=np.prod) for of_wave in inputs]
    return int(getattr(extractor_in(processor), "n_samples", 0)) if shapes[0] == shapes[1] else 0


def _is_audio(value: Any) -> bool:  # noqa: ANN401
    return hasattr(value, "is_floating_point") and bool(value.is_floating_point())


def _why_alone(folder: Path, model_type: str) -> str:
    """Return the reason why each window is a pass of its own; empty if windows share passes."""
    settings: Mapping[str, Any] = {}
    if (folder / "generation_config.json").is_file():
        settings = read(
            folder, lambda: transformers.GenerationConfig.from_pretrained(folder, local_files_only=True)
        ).to_dict()
    for name, unset in DEPENDENT.items():
        if settings.get(name) not in unset:
            return f"generation_config.json has {name}, which reads the padding"
    return why_alone(model_type)
