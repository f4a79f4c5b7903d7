"""Models with a head on any encoder of speech; an architecture gives its encoder and its name to them.

The head stands first among the bases, the architecture's base behind it: `class HubertForCTC(ForCTC,
HubertPreTrainedModel)`. Inputs (B, S) are samples; those of an encoder of features are (B, S, C).

Legend: B batch, S samples or frames of features, T frames, H hidden, C channels of a TDNN layer, V vocabulary, L labels
of a row, N classes, E embedding.
"""

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raysp.errors import CheckpointError
from raysp.models.base.outputs import (
    BaseModelOutput,
    CausalLMOutput,
    SequenceClassifierOutput,
    TokenClassifierOutput,
    Wav2Vec2BaseModelOutput,
    XVectorOutput,
)
from raysp.models.encoder import adapters
from raysp.models.encoder.heads import (
    AMSoftmaxLoss,
    LayerSum,
    blank_behind,
    check_labels,
    classification_loss,
    ctc_loss,
    frame_classification_loss,
    initial_layer_weights,
    masked_mean,
    pooled_statistics,
    tdnn_layers,
    tdnn_output_frames,
)
from raysp.models.encoder.speech_model import EncoderConfig, SpeechModel


class ForCTC(adapters.ModelOfLanguages, SpeechModel):
    """The encoder with a linear head over the vocabulary; `pad_token_id` is the blank.

    With a mask, "exact" padding makes frames behind a row's end give the blank with probability 1, so that
    `logits.argmax(-1)` of a padded batch decodes to the texts of the rows alone. Without a mask nothing says where rows
    end.
    """

    outputs: ClassVar[tuple[str, ...]] = ("Transcript",)

    def __init__(self, config: EncoderConfig, target_lang: str | None = None) -> None:
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
    ) -> CausalLMOutput | tuple[Any, ...]:
        """Return logits_BTV, and the CTC loss where labels are given.

        `attention_mask` says where each row ends: frames behind it give the blank. `labels` are (B, L) ids; -100 and
        the blank are left out. For the rest see the base model's `forward`.
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
        loss = None if labels is None else self._loss(logits_BTV, input_values, attention_mask, labels)
        if attention_mask is not None and self.padding == "exact":
            num_frames_B = self._decoded_frames(input_values, attention_mask)
            logits_BTV = blank_behind(logits_BTV, num_frames_B, self.config.pad_token_id)
        output = CausalLMOutput(
            loss=loss,
            logits=logits_BTV,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )
        return self.returned(output, return_dict)

    def _decoded_frames(self, inputs: Tensor, mask_BS: Tensor) -> Tensor:
        """Return how many frames each row has alone."""
        return self._get_feat_extract_output_lengths(mask_BS.sum(-1))

    def _loss(self, logits_BTV: Tensor, inputs: Tensor, mask_BS: Tensor | None, labels_BL: Tensor) -> Tensor:
        num_inputs_B = torch.full(inputs.shape[:1], inputs.shape[1], device=inputs.device)
        if mask_BS is not None:
            num_inputs_B = mask_BS.sum(-1)
        return ctc_loss(
            logits_BTV,
            self._get_feat_extract_output_lengths(num_inputs_B).clamp(min=0),
            labels_BL,
            blank=self.config.pad_token_id,
            reduction=self.config.ctc_loss_reduction,
            zero_infinity=self.config.ctc_zero_infinity,
        )


class ForClassification(SpeechModel):
    """What heads over classes share: which hidden states they look at."""

    takes_adapter: ClassVar[bool] = False
    """Whether the head may stand behind an adapter that makes the encoder's frames fewer."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config)
        if getattr(config, "add_adapter", False) and not self.takes_adapter:
            raise CheckpointError(f"{type(self).__name__} has no use for add_adapter: set it to False in config.json")
        setattr(self, self.base_model_prefix, self.build_base())
        self.layer_weights: nn.Parameter | None = None
        if config.use_weighted_layer_sum:
            self.layer_weights = initial_layer_weights(config.num_hidden_layers)

    def encoded_frames(
        self,
        inputs: Tensor,
        mask_BS: Tensor | None,
        output_attentions: bool | None,
        output_hidden_states: bool | None,
    ) -> tuple[Tensor, BaseModelOutput | Wav2Vec2BaseModelOutput]:
        """Return the frames that the head looks at (B, T, H), and what the base model gave."""
        layer_sum = None if self.layer_weights is None else LayerSum(self.layer_weights)
        encoded = self.base_model.encode(
            inputs,
            mask_BS,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            states=layer_sum,
        )
        return (encoded.last_hidden_state if layer_sum is None else layer_sum.total), encoded

    def _pooled_frames(self, num_frames: int, mask_BS: Tensor) -> Tensor:
        """Return valid_BT of the frames that the head looks at."""
        return self._get_feature_vector_attention_mask(num_frames, mask_BS)

    def _init_module(self, module: nn.Module) -> None:
        if module is self and self.layer_weights is not None:
            nn.init.constant_(self.layer_weights, 1 / len(self.layer_weights))
        elif isinstance(module, AMSoftmaxLoss):
            nn.init.normal_(module.weight)
        else:
            super()._init_module(module)


class ForSequenceClassification(ForClassification):
    """The encoder with classes over the mean of its frames."""

    outputs: ClassVar[tuple[str, ...]] = ("Classes",)

    def __init__(self, config: EncoderConfig) -> None:
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
    ) -> SequenceClassifierOutput | tuple[Any, ...]:
        """Return logits_BN, and a loss by `config.problem_type` where labels are given.

        `labels`: see `heads.classification_loss`. For the rest see the base model's `forward`.
        """
        frames_BTH, encoded = self.encoded_frames(input_values, attention_mask, output_attentions, output_hidden_states)
        valid_BT = None if attention_mask is None else self._pooled_frames(frames_BTH.shape[1], attention_mask)
        logits_BN = self.classifier(masked_mean(self.projector(frames_BTH), valid_BT))
        output = SequenceClassifierOutput(
            loss=None if labels is None else classification_loss(logits_BN, labels, self.config.problem_type),
            logits=logits_BN,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )
        return self.returned(output, return_dict)


class ForAudioFrameClassification(ForClassification):
    """The encoder with classes for each frame, such as who speaks."""

    outputs: ClassVar[tuple[str, ...]] = ("Segments",)

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)

    def forward(
        self,
        input_values: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> TokenClassifierOutput | tuple[Any, ...]:
        """Return logits_BTN, and the cross entropy where one-hot labels (B, T, N) are given.

        With a mask, "exact" padding leaves frames of padding out of the loss, which the original counts. For the rest
        see the base model's `forward`.
        """
        frames_BTH, encoded = self.encoded_frames(input_values, attention_mask, output_attentions, output_hidden_states)
        logits_BTN = self.classifier(frames_BTH)
        valid_BT: Tensor | None = None
        if attention_mask is not None and self.padding == "exact":
            valid_BT = self._pooled_frames(frames_BTH.shape[1], attention_mask)
        output = TokenClassifierOutput(
            loss=None if labels is None else frame_classification_loss(logits_BTN, labels, valid_BT),
            logits=logits_BTN,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )
        return self.returned(output, return_dict)


class XVectorConfig(EncoderConfig):
    """The fields that a head for speakers reads, too."""

    tdnn_dim: tuple[int, ...]
    tdnn_kernel: tuple[int, ...]
    tdnn_dilation: tuple[int, ...]
    xvector_output_dim: int
    add_adapter: bool


class ForXVector(ForClassification):
    """The encoder with a TDNN that gives one vector for a speaker (Snyder et al. 2018)."""

    outputs: ClassVar[tuple[str, ...]] = ("Embedding",)
    takes_adapter: ClassVar[bool] = True
    config: XVectorConfig

    def __init__(self, config: XVectorConfig) -> None:
        super().__init__(config)
        width = self.output_size if self._adapter_is_seen else config.hidden_size
        self.projector = nn.Linear(width, config.tdnn_dim[0])
        self.tdnn = tdnn_layers(config.tdnn_dim, config.tdnn_kernel, config.tdnn_dilation)
        self.feature_extractor = nn.Linear(2 * config.tdnn_dim[-1], config.xvector_output_dim)
        self.classifier = nn.Linear(config.xvector_output_dim, config.xvector_output_dim)
        self.objective = AMSoftmaxLoss(config.xvector_output_dim, config.num_labels)

    def _least_frames(self) -> int:
        """Return how many frames give two behind the TDNN, which have a deviation."""
        return 2 - tdnn_output_frames(0, self.config.tdnn_kernel, self.config.tdnn_dilation)

    def forward(
        self,
        input_values: Tensor,
        attention_mask: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        labels: Tensor | None = None,
    ) -> XVectorOutput | tuple[Any, ...]:
        """Return embeddings and logits, both (B, E), and the margin loss where speakers' numbers (B,) are given.

        For the rest see the base model's `forward`.
        """
        frames_BTH, encoded = self.encoded_frames(input_values, attention_mask, output_attentions, output_hidden_states)
        frames_BTC = self.projector(frames_BTH)
        for layer in self.tdnn:
            frames_BTC = layer(frames_BTC)
        num_frames_B = None if attention_mask is None else self._tdnn_frames(attention_mask)
        embeddings_BE = self.feature_extractor(pooled_statistics(frames_BTC, num_frames_B))
        logits_BE = self.classifier(embeddings_BE)
        output = XVectorOutput(
            loss=None if labels is None else self.objective(logits_BE, labels),
            logits=logits_BE,
            embeddings=embeddings_BE,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )
        return self.returned(output, return_dict)

    @property
    def _adapter_is_seen(self) -> bool:
        """Whether the head looks at frames behind an adapter: a sum over layers has those before it."""
        return self.config.add_adapter and self.layer_weights is None

    def _seen_frames(self, num_inputs_B: Tensor) -> Tensor:
        """Return how many frames of each row the head looks at."""
        raise NotImplementedError

    def _tdnn_frames(self, mask_BS: Tensor) -> Tensor:
        """Return how many frames of each row count behind the TDNN."""
        if self.padding == "reference":
            return self._get_tdnn_output_lengths(self._get_feat_extract_output_lengths(mask_BS.sum(-1)))
        seen_B = self._seen_frames(mask_BS.sum(-1))
        return tdnn_output_frames(seen_B, self.config.tdnn_kernel, self.config.tdnn_dilation).clamp(min=0)

    def _get_tdnn_output_lengths(self, input_lengths: Tensor) -> Tensor:
        """Return the original's number of frames, which leaves dilation and layer sums out."""
        return tdnn_output_frames(input_lengths, self.config.tdnn_kernel)
