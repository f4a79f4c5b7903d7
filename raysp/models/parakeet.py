"""Parakeet CTC: FastConformer (Rekesh et al. 2023, arXiv:2305.05084) over log-mel frames, eight of them to a frame.

In this order: configurations, outputs, encoder, model. Subsampling and layer are in encoder/fast_conformer.py, features
in features/parakeet.py, the tokenizer in tokenizers/pieces.py. Names of modules and weights follow published
checkpoints.

Legend: B batch, M log-mel frames, N mel bins, T frames, H hidden, A attention heads, W distances of T frames (2T - 1),
V vocabulary.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from raysp.errors import CheckpointError
from raysp.models.base.configuration import Config
from raysp.models.base.kernels import dropped
from raysp.models.base.outputs import CausalLMOutput, ModelOutput, output
from raysp.models.base.row_layout import Count, Layout
from raysp.models.encoder.conformer import sinusoids
from raysp.models.encoder.encoder_heads import ForCTC, labels_third, of_features
from raysp.models.encoder.fast_conformer import (
    FastConformerConfig,
    FastConformerLayer,
    SelfAttention,
    Subsampling,
    num_subsamplings,
    pointwise,
    subsampled,
)
from raysp.models.encoder.heads import States
from raysp.models.encoder.speech_model import SpeechModel
from raysp.models.encoder.transformer import run_layers
from raysp.models.features.parakeet_features import ParakeetFeatureExtractor

HOP_SAMPLES = 160
"""Samples from one log-mel frame to the next."""
LEAST_MELS = 2
"""Log-mel frames of the shortest input: the deviation of a single one, by which it is normalised, is undefined."""


def check_features(folder: Path, extractor: ParakeetFeatureExtractor, config: Mapping[str, Any]) -> None:
    """Check that features are the input of the model that a config.json describes.

    Raises:
        CheckpointError: sizes of features and model differ.
    """
    encoder = config.get("encoder_config") or config
    bins = encoder.get("num_mel_bins", ParakeetEncoderConfig.num_mel_bins)
    if (extractor.feature_size, extractor.hop_length) != (bins, HOP_SAMPLES):
        raise CheckpointError(
            f"{folder}: features are {extractor.feature_size} mel bins every {extractor.hop_length} samples, the model "
            f"expects num_mel_bins {bins!r} every {HOP_SAMPLES}: correct the wrong one"
        )


class ParakeetEncoderConfig(FastConformerConfig):
    """Fields and defaults of `ParakeetEncoderConfig` in transformers."""

    model_type: ClassVar[str] = "parakeet_encoder"

    num_hidden_layers: int = 24
    dropout: float = 0.1
    dropout_positions: float = 0.0
    layerdrop: float = 0.1
    max_position_embeddings: int = 5000
    scale_input: bool = True
    initializer_range: float = 0.02

    @classmethod
    def own_values(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Return the encoder's part of a config.json of a model with a head."""
        nested = values.get("encoder_config")
        return nested if isinstance(nested, dict) else values

    def front_end_values(self, sample_rate: float) -> float:
        """Return the values a second of the channels of every second log-mel frame and bin, in and out."""
        strided = sample_rate / HOP_SAMPLES / self.subsampling_conv_stride**2
        return 2 * strided * self.num_mel_bins * self.subsampling_conv_channels

    @property
    def num_key_value_heads(self) -> int:
        """Number of attention heads, under the name of models that share keys between heads."""
        return self.num_attention_heads

    @property
    def inputs_to_logits_ratio(self) -> int:
        """Log-mel frames from one frame to the next."""
        return int(self.subsampling_conv_stride ** num_subsamplings(self))

    def validate(self) -> None:
        """Raise CheckpointError for fields that contradict each other."""
        if self.num_attention_heads < 1 or self.hidden_size % self.num_attention_heads or self.hidden_size % 2:
            raise CheckpointError(
                f"num_attention_heads is {self.num_attention_heads}, expected a divisor of hidden_size "
                f"{self.hidden_size}, which must be even"
            )
        if self.conv_kernel_size < 1 or self.conv_kernel_size % 2 == 0:
            raise CheckpointError(f"conv_kernel_size is {self.conv_kernel_size}, expected an odd number")
        factor = self.subsampling_factor
        if factor < 2 or factor & (factor - 1):
            raise CheckpointError(f"subsampling_factor is {factor}, expected a power of two, such as 8")
        for name in ("subsampling_conv_kernel_size", "subsampling_conv_stride", "num_mel_bins"):
            if (value := getattr(self, name)) < 1:
                raise CheckpointError(f"{name} is {value}, expected a positive number")
        left, expected = subsampled(self.num_mel_bins, self), self.num_mel_bins // self.inputs_to_logits_ratio
        if left != expected or left < 1:
            raise CheckpointError(
                f"num_mel_bins is {self.num_mel_bins}, of which the subsampling leaves {left}, expected {expected}: "
                f"use a multiple of {self.inputs_to_logits_ratio}"
            )


class ParakeetHeadConfig(Config):
    """A configuration with a nested `encoder_config`, a `ParakeetEncoderConfig` or its JSON object."""

    def __init__(self, **values: Any) -> None:  # noqa: ANN401 - JSON, checked against the annotations
        self.encoder_config = _encoder_config(values.pop("encoder_config", None))
        super().__init__(**values)

    def to_dict(self) -> dict[str, Any]:
        """Return all values as plain JSON types, with the encoder's nested."""
        return {**super().to_dict(), "encoder_config": self.encoder_config.to_dict()}

    @property
    def hidden_size(self) -> int:
        """Width of the encoder's frames."""
        return self.encoder_config.hidden_size

    @property
    def num_hidden_layers(self) -> int:
        """Number of the encoder's layers."""
        return self.encoder_config.num_hidden_layers

    @property
    def initializer_range(self) -> float:
        """Deviation of initial weights."""
        return self.encoder_config.initializer_range


class ParakeetCTCConfig(ParakeetHeadConfig):
    """Fields and defaults of `ParakeetCTCConfig` in transformers."""

    model_type: ClassVar[str] = "parakeet_ctc"

    vocab_size: int = 1025
    ctc_loss_reduction: str = "mean"
    ctc_zero_infinity: bool = True
    pad_token_id: int | None = 1024
    final_dropout: ClassVar[float] = 0.0
    """Dropout before the head, which this architecture does not have."""


def _encoder_config(values: object) -> ParakeetEncoderConfig:
    if isinstance(values, ParakeetEncoderConfig):
        return values
    if values is not None and not isinstance(values, Mapping):
        raise CheckpointError(f"encoder_config is {values!r}, expected a JSON object: correct config.json")
    fields: Mapping[str, Any] = values or {}
    model_type = fields.get("model_type", ParakeetEncoderConfig.model_type)
    if model_type != ParakeetEncoderConfig.model_type:
        raise CheckpointError(
            f"encoder_config has model_type {model_type!r}, expected {ParakeetEncoderConfig.model_type!r}: correct "
            "config.json"
        )
    return ParakeetEncoderConfig.from_dict(fields)


@output
class ParakeetEncoderModelOutput(ModelOutput):
    """`last_hidden_state` (B, T, H), states and weights; `attention_mask` (B, T), 1 for frames of the row."""

    last_hidden_state: Tensor
    attention_mask: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


@output
class ParakeetCTCGenerateOutput(ModelOutput):
    """`sequences` (B, T), the most probable token of each frame; logits (B, T, V), states and weights."""

    sequences: Tensor
    logits: Tensor | None = None
    attentions: tuple[Tensor, ...] | None = None
    hidden_states: tuple[Tensor, ...] | None = None


class ParakeetPreTrainedModel(SpeechModel):
    """Lengths and initial weights of Parakeet models."""

    config_class: ClassVar[type[Config]] = ParakeetCTCConfig
    base_model_prefix: ClassVar[str] = "encoder"
    input_axes: ClassVar[str] = "(B, T, C)"
    training_only: ClassVar[tuple[str, ...]] = ()

    @property
    def encoder_config(self) -> ParakeetEncoderConfig:
        """Configuration of the encoder."""
        config: Any = self.config
        encoder: ParakeetEncoderConfig = config if isinstance(config, ParakeetEncoderConfig) else config.encoder_config
        return encoder

    @property
    def min_samples(self) -> int:
        """Samples of the shortest waveform whose features are defined."""
        return LEAST_MELS * HOP_SAMPLES

    @property
    def frame_stride(self) -> int:
        """Samples of the waveform from one frame to the next."""
        return HOP_SAMPLES * self.encoder_config.inputs_to_logits_ratio

    def num_frames(self, num_samples: Count) -> Count:
        """Return the number of frames for waveforms of these numbers of samples, at least 0."""
        mels = num_samples // HOP_SAMPLES
        return subsampled(mels, self.encoder_config) * (mels >= LEAST_MELS)

    def _get_feat_extract_output_lengths(self, input_lengths: Count, add_adapter: bool | None = None) -> Count:
        """Return the number of frames for these numbers of log-mel frames."""
        return subsampled(input_lengths, self.encoder_config)

    def _seems_padded(self, inputs: Tensor) -> Tensor:
        """Return a mask (B,) of rows that end in two frames of one value; the last frame of a waveform always is."""
        end_BMN = inputs[:, -2:]
        return (end_BMN == end_BMN[:, -1:, -1:]).all(-1).all(-1)

    def _init_module(self, module: nn.Module) -> None:
        deviation = self.initial_deviation
        match module:
            case SelfAttention():
                nn.init.normal_(module.bias_u, std=deviation)
                nn.init.normal_(module.bias_v, std=deviation)
            case nn.Conv1d() | nn.Conv2d():
                nn.init.normal_(module.weight, std=deviation)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            case _:
                super()._init_module(module)


class ParakeetEncoder(ParakeetPreTrainedModel):
    """The encoder without a head."""

    config_class: ClassVar[type[Config]] = ParakeetEncoderConfig

    def __init__(self, config: ParakeetEncoderConfig) -> None:
        super().__init__(config)
        self.gradient_checkpointing = False
        self.subsampling = Subsampling(config)
        self.layers = nn.ModuleList(FastConformerLayer(config) for _ in range(config.num_hidden_layers))

    @property
    def above_layers(self) -> Sequence[nn.Module | None]:
        """Modules that take the output of the last layer: always empty."""
        return ()

    def forward(
        self,
        input_features: Tensor,
        attention_mask: Tensor | Layout | None = None,
        output_attention_mask: bool = True,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> ModelOutput | tuple[Any, ...]:
        """Encode log-mel features.

        Args:
            input_features: (B, M, N) normalised log-mel frames, see `ParakeetFeatureExtractor`.
            attention_mask: (B, M), nonzero for frames of the row, which come first; None: all frames. Or a `Layout`.
            output_attention_mask: Return `attention_mask`, (B, T) int32, if a mask is given.
            output_attentions: Return `attentions`, (B, A, T, T) for each layer; None: as configured.
            output_hidden_states: Return `hidden_states`, (B, T, H) before the first layer and after each; None: as
                configured.
            return_dict: False returns a plain tuple.
        """
        layout = self.input_layout(input_features, attention_mask)
        encoded = cast(
            ParakeetEncoderModelOutput, self.encoded(input_features, layout, output_attentions, output_hidden_states)
        )
        if output_attention_mask and attention_mask is not None:
            frames = self.frame_layout(layout, encoded.last_hidden_state.shape[1])
            encoded.attention_mask = frames.valid(input_features.device).int()
        return self.returned(encoded, return_dict)

    def encode(
        self,
        inputs: Tensor,
        layout: Layout,
        *,
        mask_time_indices: Tensor | None = None,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
        states: Sequence[States] = (),
    ) -> ParakeetEncoderModelOutput:
        """Return the named output of `forward`; `states` receive each hidden state in addition.

        `mask_time_indices` must be None: this architecture masks no frames.
        """
        config = self.encoder_config
        kept: list[Tensor] = []
        frames = self.frame_layout(layout, self._get_feat_extract_output_lengths(inputs.shape[1]))
        inputs = inputs.to(self.dtype)
        if not (output_attentions or self.training):
            frames = frames.packed(inputs)
        hidden_BTH = self.subsampling(inputs, layout, frames)
        if config.scale_input:
            # Embeddings of Vaswani et al. (2017, section 3.4) were scaled so; NeMo does the same with frames.
            hidden_BTH = hidden_BTH * math.sqrt(config.hidden_size)
        hidden_BTH = dropped(hidden_BTH, config.dropout, self.training)
        waves_WH: Tensor | None = None
        if not frames.is_packed:
            waves_WH = sinusoids(frames.num_frames, config.hidden_size, hidden_BTH)
            waves_WH = dropped(waves_WH, config.dropout_positions, self.training)
        receivers, arguments = [kept, *states] if output_hidden_states else states, (waves_WH, output_attentions)
        hidden_BTH, weights = run_layers(self, self.layers, hidden_BTH, frames, *arguments, states=receivers)
        return ParakeetEncoderModelOutput(
            last_hidden_state=frames.unpack(hidden_BTH),
            hidden_states=tuple(kept) if output_hidden_states else None,
            attentions=weights if output_attentions else None,
        )


class ParakeetCTCHead(nn.Conv1d):
    """A dense layer over the vocabulary, stored as a convolution of one tap."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features, 1)

    @property
    def out_features(self) -> int:
        """Number of tokens."""
        return self.out_channels

    def forward(self, hidden_BTH: Tensor) -> Tensor:
        """Return logits_BTV."""
        return pointwise(self, hidden_BTH)


class ParakeetForCTC(ForCTC, ParakeetPreTrainedModel):
    """The encoder with a linear head over the vocabulary; `pad_token_id` is the blank."""

    head_name: ClassVar[str] = "ctc_head"
    ctc_head: ParakeetCTCHead

    def __init__(self, config: ParakeetCTCConfig, target_lang: str | None = None) -> None:
        super().__init__(config, target_lang)  # type: ignore[arg-type]  # the fields that heads read are there

    def build_base(self) -> ParakeetEncoder:
        """Return a new encoder."""
        return ParakeetEncoder(self.encoder_config)

    def build_head(self, vocab_size: int) -> ParakeetCTCHead:
        """Return a new head."""
        return ParakeetCTCHead(self.encoder_config.hidden_size, vocab_size)

    forward = of_features(labels_third)  # the order of arguments is the original's

    @torch.no_grad()
    def generate(
        self,
        input_features: Tensor,
        attention_mask: Tensor | Layout | None = None,
        return_dict_in_generate: bool = False,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
    ) -> Tensor | ParakeetCTCGenerateOutput:
        """Return the most probable token of each frame (B, T), the blank after a row's end.

        Args:
            input_features: As for `forward`.
            attention_mask: As for `forward`.
            return_dict_in_generate: Return the logits in addition, and states and weights if requested.
            output_attentions: As for `forward`.
            output_hidden_states: As for `forward`.
        """
        outputs: CausalLMOutput = self(
            input_features, attention_mask, None, output_attentions, output_hidden_states, True
        )
        sequences = outputs.logits.argmax(-1)
        layout = self.frame_layout(self.input_layout(input_features, attention_mask), sequences.shape[1])
        if layout.mask is not None:
            sequences = sequences.masked_fill(~layout.mask, self.config.pad_token_id or 0)
        if not return_dict_in_generate:
            return sequences
        return ParakeetCTCGenerateOutput(
            sequences=sequences,
            logits=outputs.logits,
            attentions=outputs.attentions,
            hidden_states=outputs.hidden_states,
        )
