"""The base of models on the encoder of transformer.py: lengths, first weights, SpecAugment, the model without a head.

Legend: B batch, S samples, T frames, C channels of the front end, H hidden.
"""

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from raysp.models.base.modeling import asked
from raysp.models.base.outputs import ModelOutput, Wav2Vec2BaseModelOutput
from raysp.models.encoder.augmentation import augmented, compute_mask_indices
from raysp.models.encoder.heads import KeptStates, States
from raysp.models.encoder.transformer import Encoder, FeatureProjection, TransformerConfig
from raysp.models.encoder.waveform import FeatureEncoder, conv_output_frames, receptive_samples
from raysp.models.encoder.waveform_model import WaveformModel


class TransformerPreTrainedModel(WaveformModel):
    """What all models with this encoder share: lengths, and how weights are first drawn."""

    training_only: ClassVar[tuple[str, ...]] = ("masked_spec_embed",)
    config: TransformerConfig

    @property
    def output_size(self) -> int:
        """Width of `last_hidden_state`."""
        return self.config.hidden_size

    @property
    def min_samples(self) -> int:
        """Samples of the shortest input, which gives one frame."""
        return receptive_samples(self.config.conv_kernel, self.config.conv_stride)

    def _valid_frames(self, num_frames_B: Tensor, length: int) -> Tensor:
        """Return valid_BT; "reference" makes a row without frames all valid."""
        if self.padding == "reference":
            num_frames_B = torch.where(num_frames_B < 1, num_frames_B + length, num_frames_B)
        return super()._valid_frames(num_frames_B, length)

    def freeze_feature_extractor(self) -> None:
        """Do the same under its older name."""
        self.freeze_feature_encoder()

    def _init_module(self, module: nn.Module) -> None:
        match module:
            case TransformerModel() if module.masked_spec_embed is not None:
                nn.init.uniform_(module.masked_spec_embed)
            case FeatureProjection(projection=projection):
                bound = math.sqrt(1 / projection.in_features)
                nn.init.uniform_(projection.weight, -bound, bound)
                nn.init.uniform_(projection.bias, -bound, bound)
            case nn.Conv1d():
                nn.init.kaiming_normal_(module.weight)
                if module.bias is not None:
                    bound = math.sqrt(module.groups / (module.in_channels * module.kernel_size[0]))
                    nn.init.uniform_(module.bias, -bound, bound)
            case _:
                super()._init_module(module)


class TransformerModel(TransformerPreTrainedModel):
    """The encoder without a head."""

    outputs: ClassVar[tuple[str, ...]] = ("Embedding",)
    masks_padded_spans: ClassVar[bool] = False
    """Whether spans of SpecAugment may fall into padding, as for "reference" padding in some architectures."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__(config)
        self.masked_spec_embed: nn.Parameter | None = None
        if config.mask_time_prob > 0.0 or config.mask_feature_prob > 0.0:
            self.masked_spec_embed = nn.Parameter(torch.rand(config.hidden_size))
        self.feature_extractor = FeatureEncoder(
            config.conv_dim,
            config.conv_kernel,
            config.conv_stride,
            bias=config.conv_bias,
            norm=config.feat_extract_norm,
            act=config.feat_extract_activation,
        )
        self.feature_projection = FeatureProjection(config)
        self.encoder = Encoder(config)

    def forward(
        self,
        input_values: Tensor,
        attention_mask: Tensor | None = None,
        mask_time_indices: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> ModelOutput | tuple[Tensor | tuple[Tensor, ...], ...]:
        """Encode waveforms.

        Args:
            input_values: (B, S) normalised samples.
            attention_mask: (B, S), nonzero where a sample is part of its row, on the left; None: all of them.
            mask_time_indices: (B, T), true where a frame is replaced by the learned mask.
            output_attentions: Ask for `attentions`, (B, A, T, T) for each layer; None: as the configuration says.
            output_hidden_states: Ask for `hidden_states`, (B, T, H) before the first layer and after each. With
                `do_stable_layer_norm` the last of them is not yet normalised.
            return_dict: False gives a plain tuple.
        """
        output: ModelOutput = self.encode(
            input_values, attention_mask, mask_time_indices, output_attentions, output_hidden_states
        )
        return self.returned(output, return_dict)

    def encode(
        self,
        waves_BS: Tensor,
        mask_BS: Tensor | None = None,
        mask_time_indices: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        states: States | None = None,
    ) -> Wav2Vec2BaseModelOutput:
        """Do what `forward` does, and always return the named output; `states` takes hidden states, too."""
        self.check_inputs(waves_BS, mask_BS)
        with_weights = asked(output_attentions, self.config.output_attentions)
        kept = KeptStates(states) if asked(output_hidden_states, self.config.output_hidden_states) else None
        num_samples_B = mask_BS.sum(-1) if mask_BS is not None and self.padding == "exact" else None
        features_BTC = self.feature_extractor(waves_BS, num_samples_B)
        valid_BT: Tensor | None = None
        if mask_BS is not None:
            num_frames_B = conv_output_frames(mask_BS.sum(-1), self.config.conv_kernel, self.config.conv_stride)
            valid_BT = self._valid_frames(num_frames_B, features_BTC.shape[1])
        hidden_BTH, features_BTC = self.feature_projection(features_BTC)
        if mask_time_indices is None and self.training:
            mask_time_indices = self.draw_time_mask(hidden_BTH.shape[0], hidden_BTH.shape[1], valid_BT)
        hidden_BTH = augmented(
            hidden_BTH, self.config, self.masked_spec_embed, mask_time_indices, valid_BT, self.training
        )
        hidden_BTH, weights = self.encoder(
            hidden_BTH, valid_BT, states if kept is None else kept, with_weights, self.padding == "exact"
        )
        return Wav2Vec2BaseModelOutput(
            last_hidden_state=hidden_BTH,
            extract_features=features_BTC,
            hidden_states=None if kept is None else tuple(kept),
            attentions=weights if with_weights else None,
        )

    def draw_time_mask(self, batch: int, num_frames: int, valid_BT: Tensor | None) -> Tensor | None:
        """Draw which frames training masks, (B, T) on the CPU; None where the configuration masks none."""
        config = self.config
        if not config.apply_spec_augment or config.mask_time_prob <= 0:
            return None
        if self.masks_padded_spans and self.padding == "reference":
            valid_BT = None
        drawn = compute_mask_indices(
            (batch, num_frames), config.mask_time_prob, config.mask_time_length, valid_BT, config.mask_time_min_masks
        )
        return torch.from_numpy(drawn)
