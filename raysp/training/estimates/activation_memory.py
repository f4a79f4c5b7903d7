"""Memory of the activations of a training pass, from the widths of the layers of a model without values.

A pass goes through places: convolutions of the front end, projections, layers, the head, layers of a decoder. Each
place keeps values for the backward pass, and needs further values while it is computed. The peak is the largest sum of
the values that the places up to one keep and that this place needs. `python -m benchmarks memory` compares it
with measured peaks.

Legend: B rows, T frames, L tokens, A attention heads, V classes of the head.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import nn

from raysp.models.base.folded import WeightNormConv1d
from raysp.models.base.modeling import Model
from raysp.models.decoder.text_decoder import TextDecoder
from raysp.models.encoder.disentangled import DisentangledSelfAttention
from raysp.models.encoder.fast_conformer import Subsampling
from raysp.models.encoder.transformer import Attention
from raysp.models.encoder.waveform import FeatureEncoder, conv_output_frames
from raysp.models.gpt2 import Conv1D
from raysp.models.speech_encoder_decoder import SpeechEncoderDecoderModel

WORKING, RECOMPUTED = 1.5, 2.0
"""Values that a place needs while it is computed, for each that it keeps; the latter if they are recomputed."""
SCORES = 2.25
"""Values for each attention score if weights are dropped on a CPU: weights, dropped weights, and a mask of bytes."""
HALF_SCORES = 3.0
"""`SCORES` in bfloat16, with torch's masks."""
BIASES, DISENTANGLED = 1.4, 2.25
"""Further values for each score if attention depends on distances; the latter by content to distance, and back."""
ALLOCATOR = 1.15
"""Memory of a process for each byte that is in use at the peak: freed blocks are not returned at once."""
ATTENTION_DROPOUTS = ("attention_dropout", "attn_pdrop", "attention_probs_dropout_prob")
"""Fields of text decoders for the dropout of attention weights, of which each has one."""
CACHE_BYTES = 32e6
"""Bytes of a frozen front end on a CPU, which is computed in chunks that stay in the cache."""


@dataclass(frozen=True)
class Batch:
    """Shape of a micro-batch."""

    rows: int
    seconds: float
    """Duration of the longest row."""
    labels: int = 0
    """Labels of the row with the most."""


@dataclass(frozen=True)
class Arithmetic:
    """Device and dtype of a pass."""

    on_gpu: bool
    is_half: bool
    checkpointing: bool

    @property
    def front_bytes(self) -> float:
        """Bytes of a value of the front end; in half precision on a CPU, convolutions keep copies of some values."""
        return (2.0 if self.on_gpu else 2.5) if self.is_half else 4.0

    @property
    def layer_bytes(self) -> float:
        """Bytes of a value of the layers, on average: norms stay in float32."""
        return 3.0 if self.is_half and self.on_gpu else 4.0

    def scores(self, dropout: float) -> float:
        """Return the values that dropout of weights keeps for each score; fused kernels keep none."""
        return 0.0 if self.on_gpu or not dropout else HALF_SCORES if self.is_half else SCORES


class Place(NamedTuple):
    """Bytes of one place of a pass."""

    kept: float
    """Bytes that are kept for the backward pass."""
    working: float
    """Further bytes while the place is computed."""


def activation_bytes(model: Model, batch: Batch, sample_rate: int, arithmetic: Arithmetic) -> float:
    """Return the peak bytes of the activations of a forward and backward pass.

    Args:
        model: a model without values, as its training begins.
        batch: the micro-batch.
        sample_rate: samples per second of the model.
        arithmetic: device and dtype.
    """
    kept = peak = 0.0
    for place in _places(model, batch, sample_rate, arithmetic):
        kept += place.kept
        peak = max(peak, kept + place.working)
    return ALLOCATOR * peak


def _places(model: Model, batch: Batch, sample_rate: int, arithmetic: Arithmetic) -> Iterator[Place]:
    samples = batch.seconds * sample_rate
    yield Place(8.0 * batch.rows * samples, 0.0)  # samples and features in float32
    encoder = model.speech_encoder
    has_gradients = False
    for place, parts in [
        *_front_end(encoder, batch, round(samples), arithmetic),
        *_encoder(encoder, batch, samples, arithmetic),
        *_head(model, batch, samples, arithmetic),
    ]:
        has_gradients |= _is_trained(parts)
        yield place if has_gradients else Place(0.0, place.working)


Placed = tuple[Place, Sequence[nn.Module]]
"""A place with the modules that are computed there."""


def _front_end(encoder: Model, batch: Batch, samples: int, arithmetic: Arithmetic) -> Iterator[Placed]:
    for module in encoder.modules():
        if isinstance(module, FeatureEncoder):
            yield from _convolutions(module, batch, samples, arithmetic)
        elif isinstance(module, Subsampling):
            yield _subsampling(module, batch, encoder, samples, arithmetic), [module]


def _convolutions(module: FeatureEncoder, batch: Batch, samples: int, arithmetic: Arithmetic) -> Iterator[Placed]:
    """Yield the convolutions, which keep the input of the norm, of the activation and of the next convolution."""
    per_value, gradients = (3.0, 3.0) if module.norm == "layer" else (2.0, 2.0)
    before = 0.0
    for number, layer in enumerate(module.layers, 1):
        frames = max(0, conv_output_frames(samples, module.kernels[:number], module.strides[:number]))
        values = batch.rows * frames * layer.conv.out_channels * arithmetic.front_bytes
        if not _is_trained([module]):
            yield Place(0.0, 3 * values if arithmetic.on_gpu else CACHE_BYTES), [layer]
        elif arithmetic.checkpointing:
            yield Place(before, (per_value + gradients) * values), [layer]
        else:
            yield Place(per_value * values, WORKING * values), [layer]
        before = values


def _subsampling(module: Subsampling, batch: Batch, encoder: Any, samples: int, arithmetic: Arithmetic) -> Place:  # noqa: ANN401 - the encoder of Parakeet
    """Return the strided convolutions over frames and bins, which keep the output of the activation, and masks."""
    frames, bins = batch.rows * samples / encoder.frame_stride, float(encoder.config.num_mel_bins)
    scale = encoder.config.inputs_to_logits_ratio
    frames, values = frames * scale, 0.0
    for layer in module.layers:
        if isinstance(layer, nn.Conv2d):
            frames, bins = frames / layer.stride[0], bins / layer.stride[0]
            values += 1.5 * frames * bins * layer.out_channels
    return Place(values * arithmetic.front_bytes, WORKING * values * arithmetic.front_bytes)


def _encoder(encoder: Any, batch: Batch, samples: float, arithmetic: Arithmetic) -> Iterator[Placed]:  # noqa: ANN401 - of any model
    layers, config = [*encoder.layers], encoder.config
    inside = {id(part) for layer in layers for part in layer.modules()}
    outer = [leaf for leaf in _leaves(encoder, FeatureEncoder, Subsampling) if id(leaf) not in inside]
    frames = batch.rows * samples / encoder.frame_stride
    yield _place(_values(outer) * frames, arithmetic, recomputes=False), outer
    row_frames = samples / encoder.hidden_stride
    scores = (arithmetic.scores(config.attention_dropout) + _biases(layers)) * config.num_attention_heads
    for layer in layers:
        values = batch.rows * row_frames * (_values(_leaves(layer)) + scores * row_frames)
        entering = batch.rows * row_frames * config.hidden_size
        yield _place(values, arithmetic, entering, recomputes=arithmetic.checkpointing), [layer]


def _biases(layers: Iterable[nn.Module]) -> float:
    """Return the values that biases by distance keep for each score."""
    kinds = {type(part) for layer in layers for part in layer.modules()}
    return 0.0 if Attention in kinds else DISENTANGLED if DisentangledSelfAttention in kinds else BIASES


def _head(model: Model, batch: Batch, samples: float, arithmetic: Arithmetic) -> Iterator[Placed]:
    if isinstance(model, SpeechEncoderDecoderModel):
        frames = batch.rows * samples / model.frame_stride
        projection = [*_leaves(model.enc_to_dec_proj)] if model.enc_to_dec_proj is not None else []
        yield _place(_values(projection) * frames, arithmetic, recomputes=False), projection
        yield from _decoder(model.decoder, batch, samples / model.frame_stride, arithmetic)
    else:
        inside = {id(part) for part in model.speech_encoder.modules()}
        own = [module for module in _leaves(model) if id(module) not in inside]
        frames = batch.rows * samples / model.frame_stride
        loss = 3.0 * max((_widths(module)[1] for module in own), default=0.0)  # logits, their logarithms, and gradients
        yield _place((_values(own) + loss) * frames, arithmetic, recomputes=False), own


def _decoder(decoder: TextDecoder, batch: Batch, row_frames: float, arithmetic: Arithmetic) -> Iterator[Placed]:
    """Yield the layers of a decoder, of which cross attention projects frames, and the head with its loss."""
    tokens, config, width = batch.rows * batch.labels, decoder.config, decoder.config.hidden_size
    dropout = max(float(getattr(config, name, 0.0)) for name in ATTENTION_DROPOUTS)
    scores = arithmetic.scores(dropout) * config.num_attention_heads * tokens * (batch.labels + row_frames)
    for layer in decoder.layers:
        values = _values(_leaves(layer)) * tokens + 6.0 * width * batch.rows * row_frames + scores
        yield _place(values, arithmetic, width * tokens, recomputes=arithmetic.checkpointing), [layer]
    head = [decoder.get_output_embeddings()]
    logits = float(config.vocab_size) * tokens
    of_row = 4.0 * config.vocab_size * batch.labels  # the loss exists for one row at a time
    yield Place(4 * logits, 4 * (logits + of_row)), head


def _place(values: float, arithmetic: Arithmetic, entering: float = 0.0, *, recomputes: bool) -> Place:
    """Return a place that keeps `values`, or only its input if the other values are recomputed."""
    size = arithmetic.layer_bytes
    if recomputes:
        return Place(size * entering, RECOMPUTED * size * values)
    return Place(size * values, WORKING * size * values)


def _is_trained(parts: Iterable[nn.Module]) -> bool:
    return any(parameter.requires_grad for part in parts for parameter in part.parameters())


def _leaves(module: nn.Module, *without: type[nn.Module]) -> Iterator[nn.Module]:
    """Yield the innermost modules below a module, and convolutions with normalised weights."""
    if isinstance(module, without):
        return
    children = [] if isinstance(module, WeightNormConv1d) else [*module.children()]
    if not children:
        yield module
    for child in children:
        yield from _leaves(child, *without)


def _values(modules: Iterable[nn.Module]) -> float:
    """Return the values that modules keep for each frame: the widths of their inputs and outputs."""
    return sum(sum(_widths(module)) for module in modules)


def _widths(module: nn.Module) -> tuple[float, float]:
    """Return the width of the input and of the output of a module; 0 for modules that keep neither."""
    match module:
        case nn.Linear() | Conv1D():
            return float(module.in_features), float(module.out_features)
        case nn.Conv1d():
            return float(module.in_channels), float(module.out_channels)
        case WeightNormConv1d():
            return float(len(module.bias)), float(len(module.bias))
        case nn.LayerNorm():
            return float(module.normalized_shape[-1]), float(module.normalized_shape[-1])
        case nn.BatchNorm1d():
            return float(module.num_features), float(module.num_features)
        case _:
            return 0.0, 0.0
