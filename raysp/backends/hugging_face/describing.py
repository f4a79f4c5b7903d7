"""Description of a checkpoint of transformers, without its weights."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import transformers

from raysp.backends.hugging_face.checkpoint_kinds import DIRECT, Kind, extractor_of, fixed_samples, kind_of, read
from raysp.capabilities import Capability
from raysp.checkpoints.contents import announced
from raysp.errors import CheckpointError
from raysp.models.base.modeling import HEAD_PARTS
from raysp.models.base.weights import read_headers
from raysp.models.encoder.languages import check_adapter
from raysp.models.labelled_passes import CheckpointSummary
from raysp.models.loading import MAX_SAMPLE_RATE, announced_adapter, check_tokens, labels_of, main_dtype

WHISPER = "whisper"
WRITERS = (WHISPER, "moonshine", "speech_to_text")
"""Model types with a text decoder for which texts were compared with those of transformers."""
OF_FRAMES = (Capability.CTC, Capability.FRAME_CLASSES)
TENTHS = 10
WRITTEN_TOGETHER = 8
"""Padded windows whose texts are written together: a step of the decoder reads all of its weights for each batch."""


@dataclass(frozen=True)
class Frames:
    """Length and stride of a model's frames, in samples."""

    receptive_samples: int
    stride: int
    known: bool = True
    """Whether frames are those of the hidden states; otherwise they only measure the parts of longer recordings."""


def describe(folder: Path) -> CheckpointSummary:
    """Check a checkpoint and return its description.

    Raises:
        CheckpointError: transformers does not read it, or raysp cannot label with it.
    """
    kind, extractor = kind_of(folder), extractor_of(folder)
    headers, rate = read_headers(folder), _sample_rate(folder, extractor)
    fixed = fixed_samples(folder, extractor)
    frames = _frames(kind.config, rate, fixed)
    _check(folder, kind, frames, fixed)
    config = kind.config
    adapter = announced_adapter(folder) if kind.head is Capability.CTC else None
    hidden, layers = int(config.hidden_size), int(config.num_hidden_layers)
    heads = () if kind.head is None else (kind.head,)
    return CheckpointSummary(
        path=folder,
        model_type=kind.model_type,
        architecture=kind.model_class.__name__,
        num_parameters=sum(header.num_elements for header in headers.values()),
        sample_rate=rate,
        vocab_size=_vocab_size(folder, kind, adapter),
        min_samples=_min_samples(kind, frames, rate),
        frame_stride=frames.stride,
        hidden_size=hidden,
        num_layers=layers + int(getattr(config, "decoder_layers", 0) or 0),
        gives=(*heads, Capability.HIDDEN_STATES) if frames.known else heads,
        dtype=main_dtype(headers),
        weight_bytes=sum(header.num_bytes for header in headers.values()),
        receptive_samples=frames.receptive_samples,
        hidden_stride=frames.stride if frames.known else 0,
        activations_per_second=_activations_per_second(config, rate, frames),
        output_size=hidden,
        xvector_size=config.xvector_output_dim if kind.head is Capability.XVECTOR else None,
        labels=labels_of(config) if kind.head in (Capability.CLASSES, Capability.FRAME_CLASSES) else (),
        problem_type=config.problem_type,
        num_hidden_states=layers + 1 if frames.known else 0,
        backend="transformers",
        unused=_unused_parts(kind, headers),
        takes_padding=fixed is not None,
        padded_samples=fixed or 0,
        windows_together=WRITTEN_TOGETHER if fixed and kind.head is Capability.TEXT_DECODER else 1,
        language=announced(folder) if kind.head is Capability.CTC else None,
        adapter=None if adapter is None else adapter.name,
        max_samples=fixed,
    )


def _unused_parts(kind: Kind, headers: Iterable[str]) -> tuple[str, ...]:
    """Return the parts of a checkpoint of an encoder that are of other heads."""
    return () if kind.head else tuple(sorted({name.partition(".")[0] for name in headers} & HEAD_PARTS))


def _sample_rate(folder: Path, extractor: Any) -> int:  # noqa: ANN401 - a class of transformers
    rate = getattr(extractor, "sampling_rate", None)
    if type(rate) is not int or not 0 < rate <= MAX_SAMPLE_RATE:
        raise CheckpointError(
            f"{folder}: sampling_rate of {type(extractor).__name__} is {rate!r}, expected samples per second, such as "
            "16000"
        )
    return rate


def _frames(config: Any, rate: int, fixed: int | None) -> Frames:  # noqa: ANN401
    """Return the frames of a front end of convolutions over samples, of Whisper, or nominal ones of 10 ms."""
    if hasattr(config, "conv_kernel") and hasattr(config, "conv_stride"):
        receptive = 1
        for kernel, stride in zip(reversed(config.conv_kernel), reversed(config.conv_stride), strict=True):
            receptive = (receptive - 1) * stride + kernel
        return Frames(receptive, prod(config.conv_stride))
    if config.model_type == WHISPER and fixed is not None:
        stride = fixed // config.max_source_positions
        return Frames(stride, stride)
    return Frames(rate // 100, rate // 100, known=False)


def _check(folder: Path, kind: Kind, frames: Frames, fixed: int | None) -> None:
    """Raise CheckpointError if raysp cannot label with a kind of model."""
    where, name = folder / "config.json", kind.model_class.__name__
    if kind.head is Capability.TEXT_DECODER and kind.model_type not in WRITERS:
        raise CheckpointError(
            f"{where}: {name} writes text, and of the text decoders of transformers raysp runs those of "
            f"{', '.join(WRITERS)}"
        )
    if kind.head in OF_FRAMES and not frames.known:
        raise CheckpointError(f"{where}: raysp does not know the frames of {name}; use a model of waveforms")
    if getattr(kind.config, "add_adapter", False):
        raise CheckpointError(f"{where}: add_adapter changes the number of frames, which raysp does not support here")
    if kind.model_type == WHISPER and fixed != frames.stride * kind.config.max_source_positions:
        raise CheckpointError(
            f"{folder}: the feature extractor pads to {fixed} samples, expected a multiple of "
            f"{kind.config.max_source_positions} positions; use the preprocessor_config.json of this model"
        )


def _min_samples(kind: Kind, frames: Frames, rate: int) -> int:
    if not frames.known:
        return rate // TENTHS
    if kind.head is not Capability.XVECTOR:
        squeezed = getattr(kind.config, "squeeze_factor", 1)
        return frames.receptive_samples + (int(squeezed) - 1) * frames.stride
    layers = zip(kind.config.tdnn_kernel, kind.config.tdnn_dilation, strict=True)
    more: int = 1 + sum((kernel - 1) * dilation for kernel, dilation in layers)  # two frames have a deviation
    return frames.receptive_samples + more * frames.stride


def _vocab_size(folder: Path, kind: Kind, adapter: Path | None) -> int | None:
    """Return the size of the vocabulary after a check of the tokenizer; None for a model without text."""
    if kind.head not in (Capability.CTC, Capability.TEXT_DECODER):
        return None
    size = int(kind.config.vocab_size) if adapter is None else check_adapter(kind.config, adapter)
    if kind.head is Capability.CTC:
        check_tokens(folder, kind.config, size)
        return size
    ids = read(folder, lambda: transformers.AutoTokenizer.from_pretrained(folder, **DIRECT)).get_vocab().values()
    if max(ids, default=-1) >= size:
        raise CheckpointError(
            f"{folder}: the tokenizer's highest token id is {max(ids)}, the model has {size} tokens (config.json, "
            "vocab_size): use the tokenizer that was saved with these weights"
        )
    return size


def _activations_per_second(config: Any, rate: int, frames: Frames) -> float:  # noqa: ANN401
    """Estimate the values held at the widest place: a layer of the encoder, or the first convolution."""
    inner = getattr(config, "intermediate_size", None) or getattr(config, "encoder_ffn_dim", None)
    inner = inner or 4 * config.hidden_size
    widest = float(rate / frames.stride * (8 * config.hidden_size + 2 * inner))
    if hasattr(config, "conv_dim"):
        widest = max(widest, 3 * rate / config.conv_stride[0] * config.conv_dim[0])
    return widest
