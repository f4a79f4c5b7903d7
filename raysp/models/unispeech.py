"""UniSpeech (Wang et al. 2021, arXiv:2101.07597): a wav2vec 2.0 encoder for CTC, classes and pre-training.

The encoder is encoder/transformer.py, unchanged. Heads are in encoder/encoder_heads.py, the quantiser and the
losses of pre-training in encoder/heads.py.

Legend: B batch, S samples, T frames, C channels of the front end, H hidden, G groups of codes, K negatives.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from raysp.crossing import sent
from raysp.models.base.configuration import Config
from raysp.models.base.kernels import dropped
from raysp.models.base.outputs import ModelOutput
from raysp.models.base.row_layout import Layout
from raysp.models.encoder.encoder_heads import ForCTC, ForSequenceClassification
from raysp.models.encoder.heads import (
    GumbelVectorQuantizer,
    contrastive_losses,
    diversity_loss,
    sample_negative_indices,
)
from raysp.models.encoder.speech_model import SpeechModel, WaveformEncoder, compute_mask_indices
from raysp.models.encoder.transformer import QuantizerConfig

_compute_mask_indices = compute_mask_indices  # the names that training scripts import
_sample_negative_indices = sample_negative_indices


class UniSpeechConfig(QuantizerConfig):
    """Fields and defaults of `UniSpeechConfig` in transformers."""

    model_type: ClassVar[str] = "unispeech"

    ctc_loss_reduction: str = "mean"
    num_ctc_classes: int = 80
    replace_prob: float = 0.5


@dataclass(eq=False)
class UniSpeechForPreTrainingOutput(ModelOutput):
    """Output of pre-training.

    `loss` if frames are masked, `projected_states` and `projected_quantized_states` (B, T, H),
    `codevector_perplexity`, and hidden states and attentions if requested.
    """

    loss: Tensor | None = None
    projected_states: Tensor | None = None
    projected_quantized_states: Tensor | None = None
    codevector_perplexity: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


class UniSpeechPreTrainedModel(SpeechModel):
    """Initial weights of all UniSpeech models."""

    config_class: ClassVar[type[Config]] = UniSpeechConfig
    base_model_prefix: ClassVar[str] = "unispeech"
    config: UniSpeechConfig

    def build_base(self) -> "UniSpeechModel":
        """Return a new model without a head, as the base of a model with a head."""
        return UniSpeechModel(self.config)

    def _init_module(self, module: nn.Module) -> None:
        if isinstance(module, GumbelVectorQuantizer):
            nn.init.normal_(module.weight_proj.weight)
            nn.init.zeros_(module.weight_proj.bias)
            nn.init.uniform_(module.codevectors)
        else:
            super()._init_module(module)


class UniSpeechModel(UniSpeechPreTrainedModel, WaveformEncoder):
    """The encoder without a head."""


class UniSpeechForCTC(ForCTC, UniSpeechPreTrainedModel):
    """The encoder with a linear head over the vocabulary; `pad_token_id` is the blank."""


class UniSpeechForSequenceClassification(ForSequenceClassification, UniSpeechPreTrainedModel):
    """The encoder with classes over the mean of its frames."""


class UniSpeechForPreTraining(UniSpeechPreTrainedModel):
    """The encoder with a quantiser, trained to identify the codes of masked frames.

    `ctc_proj` is unused, as in the original; checkpoints contain it.
    """

    def __init__(self, config: UniSpeechConfig) -> None:
        super().__init__(config)
        self.unispeech = UniSpeechModel(config)
        self.quantizer = GumbelVectorQuantizer(
            config.conv_dim[-1],
            num_groups=config.num_codevector_groups,
            num_codes=config.num_codevectors_per_group,
            dim=config.codevector_dim,
        )
        self.project_q = nn.Linear(config.codevector_dim, config.proj_codevector_dim)
        self.project_hid = nn.Linear(config.proj_codevector_dim, config.hidden_size)
        self.ctc_proj = nn.Linear(config.hidden_size, config.num_ctc_classes)

    def set_gumbel_temperature(self, temperature: float) -> None:
        """Set the temperature of Gumbel noise, which is lowered in the course of training."""
        self.quantizer.temperature = temperature

    def forward(
        self,
        input_values: Tensor,
        attention_mask: Tensor | Layout | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        mask_time_indices: Tensor | None = None,
        sampled_negative_indices: Tensor | None = None,
    ) -> UniSpeechForPreTrainingOutput | tuple[Tensor | tuple[Tensor, ...], ...]:
        """Return quantised frames, and a loss if frames are masked.

        Args:
            input_values: As for `UniSpeechModel`.
            attention_mask: As for `UniSpeechModel`.
            output_attentions: As for `UniSpeechModel`.
            output_hidden_states: As for `UniSpeechModel`.
            return_dict: As for `UniSpeechModel`.
            mask_time_indices: (B, T), true where a frame is masked; None: random in training, as configured, else no
                frame, and no loss.
            sampled_negative_indices: (B, T, num_negatives) indices into the B * T frames; None: drawn by
                `sample_negative_indices` from the masked frames of each row.
        """
        layout = self.input_layout(input_values, attention_mask)
        if mask_time_indices is None and self.training:
            num_frames = self.num_frames(input_values.shape[1])
            mask_time_indices = self.unispeech.draw_time_mask(self.frame_layout(layout, num_frames))
        encoded = self.encoded(
            input_values, layout, output_attentions, output_hidden_states, mask_time_indices=mask_time_indices
        )
        features_BTC = dropped(encoded["extract_features"], self.config.feat_quantizer_dropout, self.training)
        counted_BT = self._counted(layout, features_BTC.shape[1])
        quantized_BTD, perplexity, codes_BTG = self.quantizer(features_BTC, counted_BT)
        output = UniSpeechForPreTrainingOutput(
            projected_states=encoded.last_hidden_state,
            projected_quantized_states=self.project_hid(self.project_q(quantized_BTD)),
            codevector_perplexity=perplexity,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )
        if mask_time_indices is not None:
            masked_BT = mask_time_indices.to("cpu", torch.bool)
            if counted_BT is not None:
                masked_BT = masked_BT & counted_BT
            negatives_BTK = self._negatives(masked_BT, sampled_negative_indices)
            output.loss = self._loss(output, codes_BTG, masked_BT, negatives_BTK)
        return self.returned(output, return_dict)

    def _counted(self, layout: Layout, num_frames: int) -> Tensor | None:
        """Return a mask (B, T) of the frames of rows, on the CPU; None without padding."""
        frames = self.frame_layout(layout, num_frames)
        if frames.counts_B is None:
            return None
        return torch.arange(num_frames) < torch.tensor(frames.host_lengths)[:, None]

    def _negatives(self, masked_BT: Tensor, negatives_BTK: Tensor | None) -> Tensor:
        if negatives_BTK is not None:
            return sent(negatives_BTK, self.device)
        shape = (masked_BT.shape[0], masked_BT.shape[1])
        sampled = sample_negative_indices(shape, self.config.num_negatives, masked_BT.numpy())
        return sent(torch.from_numpy(sampled), self.device)

    def _loss(
        self, output: UniSpeechForPreTrainingOutput, codes_BTG: Tensor, masked_BT: Tensor, negatives_BTK: Tensor
    ) -> Tensor:
        """Return the contrastive loss and the diversity loss, summed over the masked frames."""
        contrast_B = contrastive_losses(
            output["projected_states"],
            output["projected_quantized_states"],
            codes_BTG,
            masked_BT,
            negatives_BTK,
            self.config.contrastive_logits_temperature,
        )
        num_codes = self.quantizer.num_groups * self.quantizer.num_codes
        diversity = self.config.diversity_loss_weight * diversity_loss(output["codevector_perplexity"], num_codes)
        return contrast_B.sum() + diversity * masked_BT.sum()
