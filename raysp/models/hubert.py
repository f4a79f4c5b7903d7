"""HuBERT (Hsu et al. 2021, arXiv:2106.07447): the encoder of wav2vec 2.0 with other pre-training and two options.

What differs from transformer.py: the projection may go without its norm, and the positional convolution may stand
behind a batch norm in place of being weight-normalised.

Legend: B batch, S samples, T frames, H hidden.
"""

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from raysp.models.base.outputs import BaseModelOutput, ModelOutput
from raysp.models.encoder.augmentation import compute_mask_indices
from raysp.models.encoder.encoder_heads import ForCTC, ForSequenceClassification
from raysp.models.encoder.transformer import FeatureProjection, TransformerConfig
from raysp.models.encoder.transformer_base import TransformerModel, TransformerPreTrainedModel
from raysp.models.files.configuration import Config
from raysp.models.kernels.activations import activation
from raysp.models.kernels.grouped import conv1d
from raysp.models.kernels.weight_norm import WeightNorm, WeightNormConv1d

_compute_mask_indices = compute_mask_indices  # the name that training scripts import


class HubertConfig(TransformerConfig):
    """Fields and defaults of `HubertConfig` in transformers."""

    model_type: ClassVar[str] = "hubert"

    feat_proj_layer_norm: bool = True
    conv_pos_batch_norm: bool = False


class HubertBatchNormConvEmbedding(nn.Module):
    """A positional convolution behind a batch norm."""

    def __init__(self, config: HubertConfig) -> None:
        super().__init__()
        kernel = config.num_conv_pos_embeddings
        self.conv = nn.Conv1d(
            config.hidden_size,
            config.hidden_size,
            kernel,
            padding=kernel // 2,
            groups=config.num_conv_pos_embedding_groups,
        )
        self.batch_norm = nn.BatchNorm1d(config.hidden_size)
        self.act = activation(config.feat_extract_activation)

    def forward(self, hidden_BTH: Tensor, kept_BT: Tensor | None) -> Tensor:
        """Return what is added to each frame; frames outside `kept_BT` are as those beyond the ends: zero."""
        x_BHT = self.batch_norm(hidden_BTH.transpose(1, 2))
        if kept_BT is not None:
            x_BHT = x_BHT.masked_fill(~kept_BT[:, None], 0.0)  # the norm has moved padding away from zero
        return self.act(conv1d(self.conv, x_BHT)[:, :, : hidden_BTH.shape[1]]).transpose(1, 2)


class HubertPreTrainedModel(TransformerPreTrainedModel):
    """What all HuBERT models share."""

    config_class: ClassVar[type[Config]] = HubertConfig
    base_model_prefix: ClassVar[str] = "hubert"
    config: HubertConfig

    def build_base(self) -> TransformerModel:
        """Make the model that a head stands on."""
        return HubertModel(self.config)

    def _init_module(self, module: nn.Module) -> None:
        match module:
            case FeatureProjection():  # its dense layer as any other
                pass
            case WeightNormConv1d(kernel=kernel, bias=bias):
                weight = torch.empty_like(module.norm.original1)
                nn.init.normal_(weight, std=math.sqrt(2 / (kernel * weight.shape[1])))
                module.parametrizations.weight = WeightNorm(weight)
                nn.init.zeros_(bias)
            case nn.Conv1d():
                nn.init.kaiming_normal_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            case nn.BatchNorm1d():
                module.reset_parameters()
            case _:
                super()._init_module(module)


class HubertModel(HubertPreTrainedModel, TransformerModel):
    """The encoder without a head."""

    masks_padded_spans: ClassVar[bool] = True

    def __init__(self, config: HubertConfig) -> None:
        super().__init__(config)
        if not config.feat_proj_layer_norm:
            self.feature_projection.layer_norm = None
        if config.conv_pos_batch_norm:
            self.encoder.pos_conv_embed = HubertBatchNormConvEmbedding(config)

    def forward(
        self,
        input_values: Tensor,
        attention_mask: Tensor | None = None,
        mask_time_indices: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> ModelOutput | tuple[Tensor | tuple[Tensor, ...], ...]:
        """Encode waveforms; as `TransformerModel.forward`, without `extract_features`."""
        encoded = self.encode(input_values, attention_mask, mask_time_indices, output_attentions, output_hidden_states)
        output = BaseModelOutput(
            last_hidden_state=encoded.last_hidden_state,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )
        return self.returned(output, return_dict)


class HubertForCTC(ForCTC, HubertPreTrainedModel):
    """The encoder with a linear head over the vocabulary; `pad_token_id` is the blank."""


class HubertForSequenceClassification(ForSequenceClassification, HubertPreTrainedModel):
    """The encoder with classes over the mean of its frames."""
