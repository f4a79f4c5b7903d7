"""Bases of speech models: `SpeechModel` for all, `EncoderModel` for models without a head; and SpecAugment.

Legend: B batch, S samples or frames of features, T frames, C channels of the front end, H hidden.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple, TypeVar, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from raysp.crossing import sent
from raysp.models.base.batches import warn_of_missing_mask
from raysp.models.base.folded import WeightNorm, WeightNormConv1d
from raysp.models.base.modeling import Model, resolved
from raysp.models.base.outputs import BaseModelOutput, ModelOutput, Wav2Vec2BaseModelOutput
from raysp.models.base.row_layout import Count, Layout
from raysp.models.encoder.heads import AMSoftmaxLoss, LayerSum, States
from raysp.models.encoder.transformer import Encoder, EncoderConfig, FeatureProjection, TransformerConfig
from raysp.models.encoder.waveform import FeatureEncoder, conv_output_frames, receptive_samples


# SpecAugment (Park et al. 2019, section 2), with the random spans that checkpoints were trained with.
def compute_mask_indices(
    shape: tuple[int, int],
    mask_prob: float,
    mask_length: int,
    attention_mask: Tensor | None = None,
    min_masks: int = 0,
) -> npt.NDArray[np.bool_]:
    """Return random spans of `mask_length` along the second axis of `shape`; True where masked.

    About `mask_prob` of an axis is covered (less where spans overlap), by at least `min_masks` spans. `attention_mask`
    limits each row to its own length. A row shorter than a span gets no span; where the whole axis is that short, the
    original raises. numpy's global generator is used in the order of the original, one number for the rounding and
    then the starts of each row, so `numpy.random.seed` repeats a training run.
    """
    lengths = None if attention_mask is None else attention_mask.sum(-1).tolist()
    return masked_spans(shape, mask_prob, mask_length, lengths, min_masks)


def masked_spans(
    shape: tuple[int, int], mask_prob: float, mask_length: int, lengths: Sequence[int] | None, min_masks: int
) -> npt.NDArray[np.bool_]:
    """Return the spans of `compute_mask_indices` for rows of these lengths; None: all as long as the axis."""
    if mask_length < 1:
        raise ValueError(f"mask_length is {mask_length!r}, expected at least 1")
    num_rows, num_places = shape
    # Drawn even where no span fits: later draws of the same seed would otherwise differ from the original's.
    rounding = np.random.rand(1).item()

    def num_spans(places: int) -> int:
        count = max(int(mask_prob * places / mask_length + rounding), min_masks)
        return max(min(count, num_places // mask_length, places - mask_length + 1), 0)

    masked = np.zeros(shape, dtype=np.bool_)
    if num_spans(num_places) == 0:
        return masked
    for row, available in zip(masked, lengths or [num_places] * num_rows, strict=True):
        starts = np.random.choice(np.arange(available - mask_length + 1), num_spans(available), replace=False)
        for start in starts:
            row[start : start + mask_length] = True
        if len(starts) == 0:  # the original masks the last place of a row without spans, which is padding
            row[-1] = True
    return masked


def augmented(
    hidden_BTH: Tensor,
    config: EncoderConfig,
    masked_spec_embed: Tensor | None,
    mask_time_indices: Tensor | None,
    training: bool,
) -> Tensor:
    """Return frames masked at `mask_time_indices` (B, T), and in training also at random features."""
    if not config.apply_spec_augment:
        return hidden_BTH
    batch, _, hidden_size = hidden_BTH.shape
    if mask_time_indices is not None:
        if masked_spec_embed is None:
            raise ValueError("mask_time_indices given to a model without masked_spec_embed: set mask_time_prob > 0")
        masked_BT1 = sent(mask_time_indices.to(torch.bool), hidden_BTH.device)[:, :, None]
        hidden_BTH = torch.where(masked_BT1, masked_spec_embed.to(hidden_BTH.dtype), hidden_BTH)
    if config.mask_feature_prob > 0 and training:
        if config.mask_feature_length > hidden_size:
            raise ValueError(
                f"mask_feature_length is {config.mask_feature_length}, expected at most hidden_size {hidden_size}: "
                "correct config.json"
            )
        shape, span, least = (batch, hidden_size), config.mask_feature_length, config.mask_feature_min_masks
        masked_BH = torch.from_numpy(compute_mask_indices(shape, config.mask_feature_prob, span, min_masks=least))
        hidden_BTH = hidden_BTH.masked_fill(sent(masked_BH, hidden_BTH.device)[:, None], 0.0)
    return hidden_BTH


Encoded = BaseModelOutput | Wav2Vec2BaseModelOutput
Output = TypeVar("Output", bound=ModelOutput)


class Reading(NamedTuple):
    """Input of a head: the output of the base model's `encode`, the inputs of that, and their layout."""

    encoded: Encoded
    inputs: Tensor
    layout: Layout
    layer_sum: LayerSum | None = None
    """Receiver of the hidden states, of the head's `layer_sum`."""
    labels: Tensor | None = None
    """Labels for a loss."""

    @property
    def frames(self) -> Tensor:
        """Frames (B, T, H): the last hidden states, or the learned sum of those of all layers."""
        return self.encoded.last_hidden_state if self.layer_sum is None else self.layer_sum.total

    def output(self, kind: Callable[..., Output], **values: Any) -> Output:  # noqa: ANN401 - fields of the output
        """Return the output of a head, with the hidden states and attention weights of the encoder."""
        return kind(**values, hidden_states=self.encoded.hidden_states, attentions=self.encoded.attentions)


class SpeechModel(Model):
    """An encoder of speech, or a model with a head on one: lengths, checks of inputs, initial weights.

    Inputs are samples or frames of features, depending on the encoder.
    """

    training_only: ClassVar[tuple[str, ...]] = ("masked_spec_embed",)
    input_axes: ClassVar[str] = "(B, S)"
    """Shape of the encoder's input."""
    zero_conv_biases: ClassVar[bool] = False
    """Whether initial biases of convolutions are zero instead of random."""
    config: EncoderConfig

    def build_base(self) -> "SpeechModel":
        """Return a new model without a head, as the base of a model with a head."""
        raise NotImplementedError

    @property
    def min_samples(self) -> int:
        """Samples of the shortest input, which yields one frame."""
        return receptive_samples(*self.config.convolutions)

    @property
    def frame_stride(self) -> int:
        """Samples from one frame to the next."""
        return self.config.inputs_to_logits_ratio

    def num_frames(self, num_samples: Count) -> Count:
        """Return the number of frames for inputs of these numbers of samples, at least 0."""
        frames = self._get_feat_extract_output_lengths(num_samples)
        return frames * (frames > 0)

    @property
    def hidden_stride(self) -> int:
        """Samples from one frame of `hidden_states` to the next."""
        return self.frame_stride

    def num_hidden_frames(self, num_samples: Count) -> Count:
        """Return the number of frames of `hidden_states` for inputs of these numbers of samples."""
        return self.num_frames(num_samples)

    @property
    def output_size(self) -> int:
        """Width of `last_hidden_state`."""
        return self.config.hidden_size

    def _get_feat_extract_output_lengths(self, input_lengths: Count, add_adapter: bool | None = None) -> Count:
        """Return the number of frames for inputs of these lengths; below 1 for too short inputs."""
        return conv_output_frames(input_lengths, *self.config.convolutions)

    def frame_layout(self, layout: Layout, num_frames: int) -> Layout:
        """Return the layout of `num_frames` frames of inputs that have a layout."""
        return layout.after(self._get_feat_extract_output_lengths, num_frames)

    def input_layout(self, inputs: Tensor, mask: Tensor | Layout | None) -> Layout:
        """Return the layout of inputs by their mask; warn of padded rows without a mask, on a CPU.

        Raises:
            ValueError: inputs or mask have another shape than the model takes.
        """
        num_axes = self.input_axes.count(",") + 1
        if inputs.dim() != num_axes:
            advice = "add the batch axis, x[None]" if inputs.dim() == num_axes - 1 else "reshape it"
            raise ValueError(
                f"{type(self).__name__} was given an input of shape {tuple(inputs.shape)!r}, expected "
                f"{self.input_axes}: {advice}"
            )
        if mask is not None:
            shape = (mask.num_rows, mask.num_frames) if isinstance(mask, Layout) else tuple(mask.shape)
            if shape != inputs.shape[:2]:
                raise ValueError(
                    f"attention_mask has shape {shape!r}, expected {tuple(inputs.shape[:2])!r} like the input of the "
                    "same call"
                )
        # On a GPU the question would wait for the device; one row alone has no padding.
        elif len(inputs) > 1 and inputs.device.type == "cpu":
            is_padded_B = self._seems_padded(inputs)
            if bool(is_padded_B.any()) and not bool(is_padded_B.all()):
                warn_of_missing_mask()
        return Layout.of(inputs, mask)

    def _seems_padded(self, inputs: Tensor) -> Tensor:
        """Return a mask (B,) of the rows that end in one value for at least the length of the shortest input."""
        end_BS = inputs[:, -self.min_samples :]
        return (end_BS == end_BS[:, -1:]).all(-1)

    def encoded(
        self,
        inputs: Tensor,
        layout: Layout,
        output_attentions: bool | None,
        output_hidden_states: bool | None,
        **options: Any,  # noqa: ANN401 - options of `encode`
    ) -> Encoded:
        """Return the output of the encoder, with weights and states as requested, or else as configured."""
        base: Any = self.base_model
        encoded: Encoded = base.encode(
            inputs,
            layout,
            output_attentions=resolved(output_attentions, base.config.output_attentions),
            output_hidden_states=resolved(output_hidden_states, base.config.output_hidden_states),
            **options,
        )
        return encoded

    def layer_sum(self) -> LayerSum | None:
        """Return a receiver of the hidden states, if the head reads their learned sum."""
        return None

    def read(self, reading: Reading) -> ModelOutput:
        """Return the output of the head for an output of the encoder; several heads may read one."""
        raise NotImplementedError

    def freeze_feature_encoder(self) -> None:
        """Exclude the convolutional front end from training; encoders of log-mel features have none."""
        for module in self.modules():
            if isinstance(module, FeatureEncoder):
                module.requires_grad_(False)

    def freeze_base_model(self) -> None:
        """Exclude all but the head from training."""
        self.base_model.requires_grad_(False)

    def _init_module(self, module: nn.Module) -> None:
        match module:
            case EncoderModel(masked_spec_embed=nn.Parameter() as embedding):
                nn.init.uniform_(embedding)
            case SpeechModel(layer_weights=nn.Parameter() as layer_weights):
                nn.init.constant_(layer_weights, 1 / len(layer_weights))
            case AMSoftmaxLoss():
                nn.init.normal_(module.weight)
            case FeatureProjection(projection=projection):
                bound = math.sqrt(1 / projection.in_features)
                nn.init.uniform_(projection.weight, -bound, bound)
                nn.init.uniform_(projection.bias, -bound, bound)
            case WeightNormConv1d(kernel=kernel, groups=groups, bias=bias):
                # Drawn as a whole and then split into the direction and length of each tap.
                weight = torch.empty_like(module.norm.original1)
                nn.init.normal_(weight, std=2 * math.sqrt(1 / (kernel * weight.shape[1] * groups)))
                module.parametrizations.weight = WeightNorm(weight)
                nn.init.zeros_(bias)
            case nn.Conv1d():
                nn.init.kaiming_normal_(module.weight)
                if module.bias is not None and self.zero_conv_biases:
                    nn.init.zeros_(module.bias)
                elif module.bias is not None:
                    bound = math.sqrt(module.groups / (module.in_channels * module.kernel_size[0]))
                    nn.init.uniform_(module.bias, -bound, bound)
            case _:
                super()._init_module(module)


class EncoderModel(SpeechModel):
    """An encoder without a head: front end, projection, SpecAugment, layers.

    An architecture sets `feature_extractor`, `feature_projection` and `encoder`, or projects inputs in its own way.
    """

    gives_features: ClassVar[bool] = True
    """Whether the output includes `extract_features`."""
    feature_extractor: nn.Module
    feature_projection: nn.Module | None
    encoder: nn.Module

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config)
        self.masked_spec_embed: nn.Parameter | None = None
        if config.mask_time_prob > 0.0 or config.mask_feature_prob > 0.0:
            self.masked_spec_embed = nn.Parameter(torch.rand(config.hidden_size))

    @property
    def layers(self) -> Sequence[nn.Module]:
        """The layers, in order."""
        return [*cast(nn.ModuleList, self.encoder.get_submodule("layers"))]

    @property
    def above_layers(self) -> Sequence[nn.Module | None]:
        """Modules that take the output of the last layer; None for one that this encoder does not have."""
        return (self.encoder.last_norm,) if isinstance(self.encoder, Encoder) else ()

    def forward(
        self,
        input_values: Tensor,
        attention_mask: Tensor | Layout | None = None,
        mask_time_indices: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> ModelOutput | tuple[Any, ...]:
        """Encode waveforms.

        Args:
            input_values: (B, S) normalised samples.
            attention_mask: (B, S), nonzero for samples of the row, which come first; None: all of them. Or a `Layout`.
            mask_time_indices: (B, T), true where a frame is replaced by the learned mask.
            output_attentions: Return `attentions`, (B, A, T, T) for each layer; None: as configured.
            output_hidden_states: Return `hidden_states`, (B, T, H) before the first layer and after each; None: as
                configured. With `do_stable_layer_norm` the last of them is not yet normalised. SEW-D's have
                `T // squeeze_factor` frames, as its attentions.
            return_dict: False returns a plain tuple.
        """
        layout = self.input_layout(input_values, attention_mask)
        output: ModelOutput = self.encoded(
            input_values, layout, output_attentions, output_hidden_states, mask_time_indices=mask_time_indices
        )
        return self.returned(output, return_dict)

    def encode(
        self,
        inputs: Tensor,
        layout: Layout,
        *,
        mask_time_indices: Tensor | None = None,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
        states: Sequence[States] = (),
    ) -> Encoded:
        """Return the named output of `forward`; `states` receive each hidden state in addition."""
        kept: list[Tensor] = []
        receivers = [kept, *states] if output_hidden_states else states
        hidden_BTH, features_BTC, layout = self.project(inputs, layout)
        if mask_time_indices is not None or self.training:
            mask_time_indices = self.draw_time_mask(layout) if mask_time_indices is None else mask_time_indices
            hidden_BTH = augmented(hidden_BTH, self.config, self.masked_spec_embed, mask_time_indices, self.training)
        hidden_BTH, weights = self.encoder(hidden_BTH, layout, receivers, output_attentions)
        outputs: dict[str, Any] = {
            "last_hidden_state": hidden_BTH,
            "hidden_states": tuple(kept) if output_hidden_states else None,
            "attentions": weights if output_attentions else None,
        }
        if self.gives_features:
            return Wav2Vec2BaseModelOutput(extract_features=features_BTC, **outputs)
        return BaseModelOutput(**outputs)

    def project(self, inputs: Tensor, layout: Layout) -> tuple[Tensor, Tensor, Layout]:
        """Return the layers' input (B, T, H), the features (B, T, C) that it is projected from, and their layout."""
        features_BTC = self.feature_extractor(inputs, layout)
        assert self.feature_projection is not None
        hidden_BTH, features_BTC = self.feature_projection(features_BTC)
        return hidden_BTH, features_BTC, self.layer_layout(layout, hidden_BTH.shape[1])

    def layer_layout(self, layout: Layout, num_frames: int) -> Layout:
        """Return the layout of the layers' input."""
        return layout.after(lambda count: conv_output_frames(count, *self.config.convolutions), num_frames)

    def draw_time_mask(self, layout: Layout) -> Tensor | None:
        """Return frames for training to mask, drawn at random, (B, T) on the CPU; None where it masks none."""
        config = self.config
        if not config.apply_spec_augment or config.mask_time_prob <= 0:
            return None
        shape, length = (layout.num_rows, layout.num_frames), config.mask_time_length
        lengths = layout.host_lengths
        masked = masked_spans(shape, config.mask_time_prob, length, lengths, config.mask_time_min_masks)
        # Drawn on the CPU by numpy, so that a seed masks the same frames as in the original, on any device.
        return torch.from_numpy(masked)


class WaveformEncoder(EncoderModel):
    """An encoder of waveforms with the layers of wav2vec 2.0."""

    encoder: Encoder
    feature_extractor: FeatureEncoder
    feature_projection: FeatureProjection

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__(config)
        self.feature_extractor = FeatureEncoder(config)
        self.feature_projection = FeatureProjection(config, config.conv_dim[-1])
        self.encoder = Encoder(config)
