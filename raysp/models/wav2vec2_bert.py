"""Wav2Vec2-BERT (Seamless Communication 2023, arXiv:2312.05187, section 3.2): a Conformer over pairs of log-mel frames.

In this order: configuration, projection, encoder, models. The Conformer layer is in encoder/conformer.py, the adapter
in encoder/conformer_adapter.py, features in features/log_mels.py, heads in encoder/encoder_heads.py. Names of modules
and weights follow published checkpoints.

Legend: B batch, T frames (pairs of log-mel frames), P frames after the adapter, C width of features, H hidden,
A attention heads, D head, W distances of T frames (2T - 1), V vocabulary, L labels of a row, N classes.
"""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from raysp.errors import CheckpointError
from raysp.models.base.configuration import Config
from raysp.models.base.kernels import dropped
from raysp.models.base.row_layout import Count, Layout
from raysp.models.encoder.adapters import AdaptedModel, Adapter
from raysp.models.encoder.conformer import (
    POSITIONS,
    ConformerConfig,
    ConformerLayer,
    SelfAttention,
    rotations,
    sinusoids,
)
from raysp.models.encoder.conformer_adapter import Wav2Vec2BertAdapterLayer
from raysp.models.encoder.encoder_heads import (
    ForAudioFrameClassification,
    ForCTC,
    ForSequenceClassification,
    ForXVector,
    of_features,
)
from raysp.models.encoder.heads import States
from raysp.models.encoder.relative_attention import clipped_distances
from raysp.models.encoder.speech_model import Encoded, EncoderModel
from raysp.models.encoder.transformer import FeatureProjection, FeedForward, run_layers
from raysp.models.features.log_mels import HOP_SAMPLES, MELS_PER_FRAME, num_mels, samples_of_mels
from raysp.models.features.seamless import SeamlessM4TFeatureExtractor

FRAME_SAMPLES = HOP_SAMPLES * MELS_PER_FRAME  # 320
"""Samples of the waveform from one frame of features to the next."""


class Wav2Vec2BertConfig(ConformerConfig):
    """Fields and defaults of `Wav2Vec2BertConfig` in transformers."""

    model_type: ClassVar[str] = "wav2vec2-bert"

    vocab_size: int | None = None
    hidden_size: int = 1024
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    intermediate_size: int = 4096
    feature_projection_input_dim: int = 160
    hidden_act: str = "swish"
    hidden_dropout: float = 0.0
    activation_dropout: float = 0.0
    attention_dropout: float = 0.0
    layer_norm_eps: float = 1e-5
    ctc_loss_reduction: str = "sum"
    classifier_proj_size: int = 768
    use_intermediate_ffn_before_adapter: bool = False
    rotary_embedding_base: int = 10000
    max_source_positions: int = 5000

    @property
    def inputs_to_logits_ratio(self) -> int:
        """Twice the features of a frame, as in the original: 320, which is also a frame's stride in samples."""
        ratio = self.feature_projection_input_dim * 2
        return ratio * self.adapter_stride**self.num_adapter_layers if self.add_adapter else ratio

    def validate(self) -> None:
        """Raise CheckpointError for fields that contradict each other."""
        super().validate()
        if self.position_embeddings_type not in POSITIONS:
            raise CheckpointError(
                f"position_embeddings_type is {self.position_embeddings_type!r}, expected one of {POSITIONS}"
            )
        sizes = [self.hidden_size, self.last_size]
        if self.num_attention_heads < 1 or any(size % self.num_attention_heads for size in sizes):
            raise CheckpointError(f"num_attention_heads is {self.num_attention_heads}, expected a divisor of {sizes}")
        if self.conv_depthwise_kernel_size < 1 or self.conv_depthwise_kernel_size % 2 == 0:
            raise CheckpointError(
                f"conv_depthwise_kernel_size is {self.conv_depthwise_kernel_size}, expected an odd number"
            )
        if self.use_intermediate_ffn_before_adapter and not self.add_adapter:
            raise CheckpointError(
                "use_intermediate_ffn_before_adapter is True without add_adapter: set both or neither"
            )
        for name in ("adapter_kernel_size", "adapter_stride", "num_adapter_layers") if self.add_adapter else ():
            if getattr(self, name) < 1:
                raise CheckpointError(f"{name} is {getattr(self, name)}, expected at least 1")


def check_features(folder: Path, extractor: SeamlessM4TFeatureExtractor, config: Mapping[str, Any]) -> None:
    """Check that features are the input of the model that a config.json describes.

    Raises:
        CheckpointError: sizes of features and model differ.
    """
    width, expected = extractor.num_mel_bins * extractor.stride, config.get("feature_projection_input_dim", 160)
    if extractor.stride != MELS_PER_FRAME or width != expected:
        raise CheckpointError(
            f"{folder}: features are {extractor.num_mel_bins} mel bins with stride {extractor.stride}, the model "
            f"expects feature_projection_input_dim {expected!r} of stride {MELS_PER_FRAME}: correct the wrong one"
        )


class Wav2Vec2BertEncoder(nn.Module):
    """The Conformer layers."""

    def __init__(self, config: Wav2Vec2BertConfig) -> None:
        super().__init__()
        self.config = config
        self.gradient_checkpointing = False
        self.layers = nn.ModuleList(ConformerLayer(config) for _ in range(config.num_hidden_layers))

    def forward(
        self, hidden_BTH: Tensor, layout: Layout, states: Sequence[States], with_weights: bool
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return the last hidden state and attention weights; `states` receive the first input and all outputs.

        A layer dropped in training returns its input. Frames of a row's padding after the first are undefined; on a CPU
        they are zero and cost nothing.
        """
        hidden_BTH = dropped(layout.zeroed(hidden_BTH), self.config.hidden_dropout, self.training)
        if not (with_weights or self.training):
            layout = layout.packed(hidden_BTH, num_next=1)
        hidden_BTH = layout.pack(hidden_BTH)
        arguments = (self.positions(hidden_BTH, layout), with_weights)
        hidden_BTH, weights = run_layers(self, self.layers, hidden_BTH, layout, *arguments, states=states)
        return layout.unpack(hidden_BTH), weights

    def positions(self, hidden_BTH: Tensor, layout: Layout) -> Tensor | None:
        """Return the input of attention for the kind of positions: index_TT, sinusoids_WH, turns_2T1D or None.

        Turns cover all frames, index and sinusoids the longest row.
        """
        config, num_frames = self.config, layout.num_frames
        match config.position_embeddings_type:
            case "relative_key":
                left, right = config.left_max_position_embeddings, config.right_max_position_embeddings
                return clipped_distances(num_frames, left, right, hidden_BTH.device)
            case "relative":
                return sinusoids(num_frames, config.hidden_size, hidden_BTH)
            case "rotary":
                head_size = config.hidden_size // config.num_attention_heads
                turns_2T1D = rotations(num_frames, head_size, config.rotary_embedding_base, hidden_BTH)
                return layout.joined(turns_2T1D[:, : place.stop - place.start] for place in layout.places)
            case _:
                return None


def has_odd_mel(features_BTC: Tensor, count_B: Tensor) -> Tensor:
    """Return a mask (B,) of the rows that end in an odd log-mel frame, in their features but not in their count.

    It is the first half of a frame whose second half is padding, of one value. A row that itself ends in that value,
    digital silence, is ambiguous; its frame counts as its own.
    """
    batch, num_frames, width = features_BTC.shape
    rows_B = torch.arange(batch, device=features_BTC.device)
    next_BC, last_BC = (features_BTC[rows_B, places_B.clamp(0, num_frames - 1)] for places_B in (count_B, count_B - 1))
    padding_B1 = next_BC[:, -1:]
    is_half_B = (next_BC[:, width // 2 :] == padding_B1).all(-1)
    is_whole_B = (next_BC == padding_B1).all(-1) & ~(last_BC == padding_B1).all(-1)
    return (count_B < num_frames) & is_half_B & ~is_whole_B


class Wav2Vec2BertPreTrainedModel(AdaptedModel):
    """Lengths and initial weights of all Wav2Vec2-BERT models."""

    config_class: ClassVar[type[Config]] = Wav2Vec2BertConfig
    base_model_prefix: ClassVar[str] = "wav2vec2_bert"
    input_axes: ClassVar[str] = "(B, T, C)"
    config: Wav2Vec2BertConfig

    def build_base(self) -> "Wav2Vec2BertModel":
        """Return a new model without a head, as the base of a model with a head."""
        return Wav2Vec2BertModel(self.config)

    @property
    def min_samples(self) -> int:
        """Samples of the shortest waveform whose features yield a frame."""
        candidates = itertools.count(samples_of_mels(MELS_PER_FRAME), FRAME_SAMPLES)
        return next(n for n in candidates if self.num_frames(n) >= self._least_frames())

    @property
    def hidden_stride(self) -> int:
        """Samples of the waveform from one frame of `hidden_states`, which precede the adapter, to the next."""
        return FRAME_SAMPLES

    def num_hidden_frames(self, num_samples: Count) -> Count:
        """Return the number of frames of `hidden_states` for waveforms of these numbers of samples."""
        mels = num_mels(num_samples)
        # Rounded up for an odd frame, but a single log-mel frame makes no pair.
        return (mels + 1) // MELS_PER_FRAME * (mels >= MELS_PER_FRAME)

    def num_frames(self, num_samples: Count) -> Count:
        """Return the number of frames for waveforms of these numbers of samples, at least 0.

        An odd log-mel frame at the end yields one, too: no frame attends to it, but it attends to all others, and the
        original reads its label like any other.
        """
        mels = num_mels(num_samples)
        frames = self._get_feat_extract_output_lengths((mels + 1) // MELS_PER_FRAME)
        return frames * (mels >= MELS_PER_FRAME) * (frames > 0)

    def _seems_padded(self, inputs: Tensor) -> Tensor:
        """Return a mask (B,) of the rows that end in a frame of one value."""
        end_BC = inputs[:, -1]
        return (end_BC == end_BC[:, -1:]).all(-1)

    def _init_module(self, module: nn.Module) -> None:
        match module:
            case SelfAttention(kind="relative"):
                nn.init.xavier_uniform_(module.pos_bias_u)
                nn.init.xavier_uniform_(module.pos_bias_v)
            case _:
                super()._init_module(module)


class Wav2Vec2BertModel(Wav2Vec2BertPreTrainedModel, EncoderModel):
    """The encoder without a head; includes the adapter if there is one."""

    encoder: Wav2Vec2BertEncoder
    feature_projection: FeatureProjection

    def __init__(self, config: Wav2Vec2BertConfig) -> None:
        super().__init__(config)
        self.feature_projection = FeatureProjection(config, config.feature_projection_input_dim)
        self.encoder = Wav2Vec2BertEncoder(config)
        self.adapter = Adapter(config, Wav2Vec2BertAdapterLayer, config.layer_norm_eps) if config.add_adapter else None
        self.intermediate_ffn: FeedForward | None = None
        if config.use_intermediate_ffn_before_adapter:
            self.intermediate_ffn = FeedForward(config, config.hidden_size, "relu")

    @property
    def above_layers(self) -> Sequence[nn.Module | None]:
        """Modules that take the output of the last layer."""
        return (self.intermediate_ffn, self.adapter)

    forward = of_features(EncoderModel.forward)

    def encode(
        self,
        inputs: Tensor,
        layout: Layout,
        **options: Any,  # noqa: ANN401 - options of the base
    ) -> Encoded:
        """Return the named output of `forward`: see the base."""
        encoded = super().encode(inputs, layout, **options)
        hidden_BTH = encoded.last_hidden_state
        if self.intermediate_ffn is not None:
            # Half a feed-forward, as in the Conformer layers (Gulati et al. 2020, section 2.4).
            hidden_BTH = torch.add(hidden_BTH, self.intermediate_ffn(hidden_BTH), alpha=0.5)
        if self.adapter is not None:
            hidden_BTH = self.adapter(hidden_BTH, layout)
        encoded.last_hidden_state = hidden_BTH
        return encoded

    def project(self, inputs: Tensor, layout: Layout) -> tuple[Tensor, Tensor, Layout]:
        """Return the layers' input (B, T, H), the features (B, T, C) that it is projected from, and their layout."""
        return (*self.feature_projection(inputs.to(self.dtype)), layout)


class Wav2Vec2BertForCTC(ForCTC, Wav2Vec2BertPreTrainedModel):
    """The encoder with a linear head over the vocabulary; `pad_token_id` is the blank."""

    forward = of_features(ForCTC.forward)

    def _decoded_frames(self, inputs: Tensor, num_inputs_B: Tensor) -> Tensor:
        """Return the number of frames of each row alone, including the frame of an odd log-mel frame at its end."""
        return self._get_feat_extract_output_lengths(num_inputs_B + has_odd_mel(inputs, num_inputs_B))


class Wav2Vec2BertForSequenceClassification(ForSequenceClassification, Wav2Vec2BertPreTrainedModel):
    """The encoder with classes over the mean of its frames."""

    forward = of_features(ForSequenceClassification.forward)


class Wav2Vec2BertForAudioFrameClassification(ForAudioFrameClassification, Wav2Vec2BertPreTrainedModel):
    """The encoder with classes for each frame, such as speakers."""

    forward = of_features(ForAudioFrameClassification.forward)


class Wav2Vec2BertForXVector(ForXVector, Wav2Vec2BertPreTrainedModel):
    """The encoder with a speaker embedding over its frames (Snyder et al. 2018)."""

    config: Wav2Vec2BertConfig

    forward = of_features(ForXVector.forward)
