"""SEW-D (Wu et al. 2021, arXiv:2109.06870): a squeezed wav2vec 2.0 encoder with the attention of DeBERTa.

In this order: configuration, positional convolution, layers, squeezing encoder, models. The attention is in
encoder/disentangled.py, the convolutional front end in encoder/waveform.py, heads in encoder/encoder_heads.py. Names of
modules and weights follow published checkpoints.

Legend: B batch, S samples, T frames, Q squeezed frames, C channels of the front end, H hidden, A attention heads,
R rows of the table of distances, F frames of a group, N frames of all rows.
"""

from collections.abc import Sequence
from typing import ClassVar, cast

import torch.nn.functional as F
from torch import Tensor, nn

from raysp.errors import CheckpointError
from raysp.models.base.configuration import Config
from raysp.models.base.folded import Folded
from raysp.models.base.kernels import activation, dense, dropped
from raysp.models.base.row_layout import Count, Layout
from raysp.models.encoder.disentangled import DisentangledConfig, DisentangledSelfAttention, Distances
from raysp.models.encoder.encoder_heads import ForCTC, ForSequenceClassification
from raysp.models.encoder.heads import States
from raysp.models.encoder.speech_model import EncoderModel, SpeechModel
from raysp.models.encoder.transformer import PositionalConvEmbedding, run_layers
from raysp.models.encoder.waveform import FeatureEncoder, receptive_samples


class SEWDConfig(DisentangledConfig):
    """Fields and defaults of `SEWDConfig` in transformers, including fields that its model reads undeclared."""

    model_type: ClassVar[str] = "sew-d"

    squeeze_factor: int = 2
    norm_rel_ebd: str = "layer_norm"
    hidden_act: str = "gelu_python"
    layer_norm_eps: float = 1e-7
    feature_layer_norm_eps: float = 1e-5
    conv_dim: tuple[int, ...] = (64, 128, 128, 128, 128, 256, 256, 256, 256, 512, 512, 512, 512)
    conv_stride: tuple[int, ...] = (5, 2, 1, 2, 1, 2, 1, 2, 1, 2, 1, 2, 1)
    conv_kernel: tuple[int, ...] = (10, 3, 1, 3, 1, 3, 1, 3, 1, 2, 1, 2, 1)
    ctc_loss_reduction: str = "mean"

    def validate(self) -> None:
        """Raise CheckpointError for fields that contradict each other."""
        super().validate()
        if getattr(self, "attention_head_size", None) not in (None, self.hidden_size // self.num_attention_heads):
            raise CheckpointError(
                "attention_head_size differs from hidden_size / num_attention_heads: correct it or remove it"
            )
        if self.squeeze_factor < 1 or self.furthest_distance < 1 or self.position_buckets == 1:
            raise CheckpointError(
                f"squeeze_factor is {self.squeeze_factor}, max_position_embeddings {self.max_position_embeddings}, "
                f"position_buckets {self.position_buckets}: expected at least 1 for the first two, and not 1 for the "
                "last"
            )


class SEWDOutput(nn.Module):
    """Projection, residual and normalisation."""

    def __init__(self, config: SEWDConfig, in_features: int) -> None:
        super().__init__()
        self.config = config
        self.dense = nn.Linear(in_features, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)

    def forward(self, inner_BQI: Tensor, residual_BQH: Tensor) -> Tensor:
        """Return the normalised sum."""
        projected_BQH = dropped(dense(self.dense, inner_BQI), self.config.activation_dropout, self.training)
        normalised_BQH: Tensor = self.LayerNorm(projected_BQH + residual_BQH)
        return normalised_BQH


class SEWDLayer(nn.Module):
    """Attention and feed-forward, each followed by normalisation."""

    def __init__(self, config: SEWDConfig) -> None:
        super().__init__()
        attention, output = DisentangledSelfAttention(config), SEWDOutput(config, config.hidden_size)
        self.attention = nn.ModuleDict({"self": attention, "output": output})
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(config.hidden_size, config.intermediate_size)})
        self.act = activation(config.hidden_act)
        self.output = SEWDOutput(config, config.intermediate_size)

    def forward(
        self,
        hidden_BQH: Tensor,
        layout: Layout,
        distances: Distances | None,
        with_weights: bool,
    ) -> tuple[Tensor, Tensor | None]:
        """Return the layer's output, and attention weights if requested."""
        attended_BQH, weights_BAQQ = self.attention["self"](hidden_BQH, layout, distances, with_weights)
        hidden_BQH = self.attention["output"](attended_BQH, hidden_BQH)
        inner_BQI = self.act(dense(self.intermediate["dense"], hidden_BQH))
        return self.output(inner_BQI, hidden_BQH), weights_BAQQ


class SEWDTransformerEncoder(nn.Module):
    """The layers, and the table of distances that they share."""

    def __init__(self, config: SEWDConfig) -> None:
        super().__init__()
        self.config = config
        self.gradient_checkpointing = False
        self.layer = nn.ModuleList(SEWDLayer(config) for _ in range(config.num_hidden_layers))
        if config.relative_attention:
            self.rel_embeddings = nn.Embedding(2 * config.distance_span, config.hidden_size)
        self.norms_table = "layer_norm" in [name.strip() for name in config.norm_rel_ebd.lower().split("|")]
        if self.norms_table:
            self.LayerNorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        # Normalised once for all layers and batches, and again when one of its weights changes.
        self._table: Folded[Tensor] = Folded()

    def forward(
        self, hidden_BQH: Tensor, layout: Layout, states: Sequence[States], with_weights: bool
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return the last hidden state and attention weights; `states` receive the first input and all outputs.

        Without weights and training, a CPU does no work on padding, whose frames are then zero.
        """
        if not (with_weights or self.training):
            layout = layout.packed(hidden_BQH)
        hidden_BQH = layout.pack(hidden_BQH)
        distances = None
        if self.config.relative_attention:
            longest = max(1, *(place.stop - place.start for place in layout.places))
            distances = Distances.of(self.config, self._normalised_table(), longest)
        hidden_BQH, weights = run_layers(self, self.layer, hidden_BQH, layout, distances, with_weights, states=states)
        return layout.unpack(hidden_BQH), weights

    def _normalised_table(self) -> Tensor:
        if not self.norms_table:
            return self.rel_embeddings.weight
        weights = (self.rel_embeddings.weight, self.LayerNorm.weight, self.LayerNorm.bias)
        return self._table(weights, lambda: self.LayerNorm(self.rel_embeddings.weight))


class SEWDUpsampling(nn.Module):
    """Expansion of each frame into `squeeze_factor` frames."""

    def __init__(self, config: SEWDConfig) -> None:
        super().__init__()
        self.factor = config.squeeze_factor
        self.projection = nn.Linear(config.hidden_size, config.hidden_size * config.squeeze_factor)
        self.act = activation(config.feat_extract_activation)

    def forward(self, hidden_BQH: Tensor) -> Tensor:
        """Return (B, Q * squeeze_factor, H)."""
        wide_BQI = self.act(dense(self.projection, hidden_BQH))
        return wide_BQI.reshape(wide_BQI.shape[0], -1, hidden_BQH.shape[-1])


class SEWDEncoder(nn.Module):
    """The layers between squeezing and upsampling of frames (Wu et al. 2021, section 4.3)."""

    def __init__(self, config: SEWDConfig) -> None:
        super().__init__()
        self.config = config
        self.pos_conv_embed = PositionalConvEmbedding(config, config.squeeze_factor)
        self.encoder = SEWDTransformerEncoder(config)
        self.upsample = SEWDUpsampling(config)

    def forward(
        self, hidden_BTH: Tensor, layout: Layout, states: Sequence[States], with_weights: bool
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return the last hidden state, zero after the last whole group of frames, and attention weights.

        Args:
            hidden_BTH: Projected features.
            layout: Layout of the frames.
            states: Receive hidden states, which are squeezed.
            with_weights: Return attention weights.
        """
        num_frames, factor = hidden_BTH.shape[1], self.config.squeeze_factor
        num_squeezed = num_frames // factor
        # An incomplete group of frames is excluded, as for a row alone.
        squeezed = layout.after(lambda count: count // factor, num_squeezed)
        hidden_BTH = layout.zeroed(hidden_BTH)  # the positional convolution reads across a row's end
        groups_BQFH = hidden_BTH[:, : num_squeezed * factor].reshape(len(hidden_BTH), num_squeezed, factor, -1)
        positions_BQH = self.pos_conv_embed(hidden_BTH, None)
        hidden_BQH = squeezed.zeroed(groups_BQFH.mean(2) + positions_BQH)
        hidden_BQH, weights = self.encoder(hidden_BQH, squeezed, states, with_weights)
        stretched = squeezed.after(lambda count: count * factor, num_squeezed * factor)
        stretched_BTH = stretched.zeroed(self.upsample(hidden_BQH))
        # An odd number of frames leaves one in no whole group; it has zeros, as in the original.
        return F.pad(stretched_BTH, (0, 0, 0, num_frames - num_squeezed * factor)), weights


class SEWDPreTrainedModel(SpeechModel):
    """Lengths and initial weights of all SEW-D models."""

    config_class: ClassVar[type[Config]] = SEWDConfig
    base_model_prefix: ClassVar[str] = "sew_d"
    zero_conv_biases: ClassVar[bool] = True
    config: SEWDConfig

    def build_base(self) -> "SEWDModel":
        """Return a new model without a head, as the base of a model with a head."""
        return SEWDModel(self.config)

    @property
    def min_samples(self) -> int:
        """Samples of the shortest input, which yields one squeezed frame."""
        shortest = receptive_samples(*self.config.convolutions)
        return shortest + (self.config.squeeze_factor - 1) * self.frame_stride

    @property
    def hidden_stride(self) -> int:
        """Samples from one frame of `hidden_states`, which are squeezed, to the next."""
        return self.frame_stride * self.config.squeeze_factor

    def num_hidden_frames(self, num_samples: Count) -> Count:
        """Return the number of squeezed frames for inputs of these numbers of samples."""
        return self.num_frames(num_samples) // self.config.squeeze_factor


class SEWDModel(SEWDPreTrainedModel, EncoderModel):
    """The encoder without a head."""

    gives_features: ClassVar[bool] = False
    feature_extractor: FeatureEncoder
    encoder: SEWDEncoder

    def __init__(self, config: SEWDConfig) -> None:
        super().__init__(config)
        self.feature_extractor = FeatureEncoder(config)
        self.layer_norm = nn.LayerNorm(config.conv_dim[-1], eps=config.feature_layer_norm_eps)
        self.feature_projection: nn.Linear | None = None
        if config.conv_dim[-1] != config.hidden_size:
            self.feature_projection = nn.Linear(config.conv_dim[-1], config.hidden_size)
        self.encoder = SEWDEncoder(config)

    @property
    def layers(self) -> Sequence[nn.Module]:
        """The layers, in order."""
        return [*cast(nn.ModuleList, self.encoder.get_submodule("encoder.layer"))]

    @property
    def above_layers(self) -> Sequence[nn.Module | None]:
        """Modules that take the output of the last layer."""
        return (self.encoder.get_submodule("upsample"),)

    def project(self, inputs: Tensor, layout: Layout) -> tuple[Tensor, Tensor, Layout]:
        """Return the encoder's input (B, T, H), the features (B, T, C) that it is projected from, and their layout."""
        if inputs.shape[1] < self.min_samples:
            raise RuntimeError(f"input has {inputs.shape[1]} samples, the model needs at least {self.min_samples}")
        features_BTC = self.feature_extractor(inputs, layout)
        hidden_BTH = self.layer_norm(features_BTC)
        if self.feature_projection is not None:
            hidden_BTH = self.feature_projection(hidden_BTH)
        hidden_BTH = dropped(hidden_BTH, self.config.feat_proj_dropout, self.training)
        return hidden_BTH, features_BTC, self.layer_layout(layout, hidden_BTH.shape[1])


class SEWDForCTC(ForCTC, SEWDPreTrainedModel):
    """The encoder with a linear head over the vocabulary; `pad_token_id` is the blank."""


class SEWDForSequenceClassification(ForSequenceClassification, SEWDPreTrainedModel):
    """The encoder with classes over the mean of its frames."""

    def _pooled_layout(self, layout: Layout, num_frames: int) -> Layout:
        """Return the layout of the frames; frames of a layer sum are squeezed, which the original ignores."""
        if self.layer_weights is None:
            return self.frame_layout(layout, num_frames)
        return layout.after(self.num_hidden_frames, num_frames)
