"""Models with a head on the encoder of transformer_base.py; an architecture adds its name to them.

Legend: B batch, S samples, T frames, H hidden, V vocabulary, L labels of a row, N classes.
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raysp.errors import CheckpointError
from raysp.models import adapters
from raysp.models.heads import LayerSum, check_labels, classification_loss, ctc_loss, initial_layer_weights, masked_mean
from raysp.models.outputs import CausalLMOutput, SequenceClassifierOutput, Wav2Vec2BaseModelOutput
from raysp.models.transformer import TransformerConfig
from raysp.models.transformer_base import TransformerPreTrainedModel


class ForCTC(adapters.ModelOfLanguages, TransformerPreTrainedModel):
    """The encoder with a linear head over the vocabulary; `pad_token_id` is the blank."""

    outputs: ClassVar[tuple[str, ...]] = ("Transcript",)

    def __init__(self, config: TransformerConfig, target_lang: str | None = None) -> None:
        """Build the model; `target_lang` is the language whose adapter `from_pretrained` loads."""
        super().__init__(config)
        if config.vocab_size is None:
            raise CheckpointError("vocab_size is None, expected the number of tokens: pass vocab_size=...")
        setattr(self, self.base_model_prefix, self.build_base())
        self.lm_head = nn.Linear(self.output_size, config.vocab_size)
        self.use_language(target_lang)

    def forward(
        self,
        input_values: Tensor,
        attention_mask: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        labels: Tensor | None = None,
    ) -> CausalLMOutput | tuple[Tensor | tuple[Tensor, ...], ...]:
        """Return logits_BTV, and the CTC loss where labels are given.

        `labels` are (B, L) ids; -100 and the blank are left out. For the rest see the base model's `forward`.
        """
        if labels is not None:
            check_labels(labels, self.lm_head.out_features)
        encoded = self.base_model.encode(
            input_values,
            attention_mask,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
        )
        logits_BTV = self.lm_head(F.dropout(encoded.last_hidden_state, self.config.final_dropout, self.training))
        output = CausalLMOutput(
            loss=None if labels is None else self._loss(logits_BTV, input_values, attention_mask, labels),
            logits=logits_BTV,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )
        return self.returned(output, return_dict)

    def _loss(self, logits_BTV: Tensor, waves_BS: Tensor, mask_BS: Tensor | None, labels_BL: Tensor) -> Tensor:
        num_samples_B = torch.full_like(waves_BS[:, 0], waves_BS.shape[1], dtype=torch.long)
        if mask_BS is not None:
            num_samples_B = mask_BS.sum(-1)
        return ctc_loss(
            logits_BTV,
            self.num_frames(num_samples_B),
            labels_BL,
            blank=self.config.pad_token_id,
            reduction=self.config.ctc_loss_reduction,
            zero_infinity=self.config.ctc_zero_infinity,
        )


class ForClassification(TransformerPreTrainedModel):
    """What heads over classes share: which hidden states they look at."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__(config)
        setattr(self, self.base_model_prefix, self.build_base())
        self.layer_weights: nn.Parameter | None = None
        if config.use_weighted_layer_sum:
            self.layer_weights = initial_layer_weights(config.num_hidden_layers)

    def encode(
        self,
        waves_BS: Tensor,
        mask_BS: Tensor | None,
        output_attentions: bool | None,
        output_hidden_states: bool | None,
    ) -> tuple[Tensor, Wav2Vec2BaseModelOutput]:
        """Return the frames that the head looks at (B, T, H), and what the base model gave."""
        layer_sum = None if self.layer_weights is None else LayerSum(self.layer_weights)
        encoded = self.base_model.encode(
            waves_BS,
            mask_BS,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            states=layer_sum,
        )
        return (encoded.last_hidden_state if layer_sum is None else layer_sum.total), encoded

    def _init_module(self, module: nn.Module) -> None:
        if module is self and self.layer_weights is not None:
            nn.init.constant_(self.layer_weights, 1 / len(self.layer_weights))
        else:
            super()._init_module(module)


class ForSequenceClassification(ForClassification):
    """The encoder with classes over the mean of its frames."""

    outputs: ClassVar[tuple[str, ...]] = ("Classes",)

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__(config)
        self.projector = nn.Linear(config.hidden_size, config.classifier_proj_size)
        self.classifier = nn.Linear(config.classifier_proj_size, config.num_labels)

    def forward(
        self,
        input_values: Tensor,
        attention_mask: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        labels: Tensor | None = None,
    ) -> SequenceClassifierOutput | tuple[Tensor | tuple[Tensor, ...], ...]:
        """Return logits_BN, and a loss by `config.problem_type` where labels are given.

        `labels`: see `heads.classification_loss`. For the rest see the base model's `forward`.
        """
        frames_BTH, encoded = self.encode(input_values, attention_mask, output_attentions, output_hidden_states)
        valid_BT: Tensor | None = None
        if attention_mask is not None:
            valid_BT = self._get_feature_vector_attention_mask(frames_BTH.shape[1], attention_mask)
        logits_BN = self.classifier(masked_mean(self.projector(frames_BTH), valid_BT))
        output = SequenceClassifierOutput(
            loss=None if labels is None else classification_loss(logits_BN, labels, self.config.problem_type),
            logits=logits_BN,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )
        return self.returned(output, return_dict)
