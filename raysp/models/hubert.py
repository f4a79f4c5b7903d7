"""HuBERT (Hsu et al. 2021, arXiv:2106.07447): the encoder of wav2vec 2.0 with other pre-training and two options.

Differences from encoder/transformer.py: the projection may omit its norm, and the positional convolution may follow a
batch norm instead of being weight-normalised.

Legend: B batch, S samples, T frames, H hidden.
"""

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raysp.models.base.configuration import Config
from raysp.models.base.folded import WeightNorm, WeightNormConv1d
from raysp.models.base.kernels import activation, conv1d
from raysp.models.encoder.encoder_heads import ForCTC, ForSequenceClassification
from raysp.models.encoder.speech_classification import ForSpeechClassification
from raysp.models.encoder.speech_model import SpeechModel, WaveformEncoder, compute_mask_indices
from raysp.models.encoder.transformer import FeatureProjection, TransformerConfig

_compute_mask_indices = compute_mask_indices  # the name that training scripts import


class HubertConfig(TransformerConfig):
    """Fields and defaults of `HubertConfig` in transformers."""

    model_type: ClassVar[str] = "hubert"

    feat_proj_layer_norm: bool = True
    conv_pos_batch_norm: bool = False


class HubertBatchNormConvEmbedding(nn.Module):
    """A positional convolution after a batch norm."""

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
        """Return the residual (B, T, H); frames outside `kept_BT` count as zero.

        Training normalises by the running statistics, too, and leaves them unchanged: with statistics of a batch, a row
        would depend on other rows.
        """
        norm = self.batch_norm
        x_BHT = F.batch_norm(
            hidden_BTH.transpose(1, 2), norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps
        )
        if kept_BT is not None:
            x_BHT = x_BHT.masked_fill(~kept_BT[:, None], 0.0)  # the norm makes padding nonzero
        return self.act(conv1d(self.conv, x_BHT)[:, :, : hidden_BTH.shape[1]]).transpose(1, 2)


class HubertPreTrainedModel(SpeechModel):
    """Initial weights of all HuBERT models."""

    config_class: ClassVar[type[Config]] = HubertConfig
    base_model_prefix: ClassVar[str] = "hubert"
    zero_conv_biases: ClassVar[bool] = True
    config: HubertConfig

    def build_base(self) -> "HubertModel":
        """Return a new model without a head, as the base of a model with a head."""
        return HubertModel(self.config)

    def _init_module(self, module: nn.Module) -> None:
        match module:
            case FeatureProjection():  # its dense layer is initialised like any other
                pass
            case WeightNormConv1d(kernel=kernel, bias=bias):
                weight = torch.empty_like(module.norm.original1)
                nn.init.normal_(weight, std=math.sqrt(2 / (kernel * weight.shape[1])))
                module.parametrizations.weight = WeightNorm(weight)
                nn.init.zeros_(bias)
            case _:
                super()._init_module(module)


class HubertModel(HubertPreTrainedModel, WaveformEncoder):
    """The encoder without a head."""

    gives_features: ClassVar[bool] = False

    def __init__(self, config: HubertConfig) -> None:
        super().__init__(config)
        if not config.feat_proj_layer_norm:
            self.feature_projection.layer_norm = None
        if config.conv_pos_batch_norm:
            self.encoder.pos_conv_embed = HubertBatchNormConvEmbedding(config)


class HubertForCTC(ForCTC, HubertPreTrainedModel):
    """The encoder with a linear head over the vocabulary; `pad_token_id` is the blank."""


class HubertForSequenceClassification(ForSequenceClassification, HubertPreTrainedModel):
    """The encoder with classes over the mean of its frames."""


class HubertForSpeechClassification(ForSpeechClassification, HubertPreTrainedModel):
    """The encoder with classes or numbers of its pooled frames, such as emotions; not in transformers."""
