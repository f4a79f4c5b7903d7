"""Models with a head on any encoder of speech; an architecture adds its encoder and its name.

The head is the first base, the architecture's base the second: `class HubertForCTC(ForCTC, HubertPreTrainedModel)`.
Inputs (B, S) are samples; those of an encoder of features are (B, S, C).

Legend: B batch, S samples or frames of features, T frames, H hidden, C channels of a TDNN layer, V vocabulary, L labels
of a row, N classes, E embedding.
"""

from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from raysp.capabilities import Capability
from raysp.errors import CheckpointError
from raysp.models.base.outputs import (
    CausalLMOutput,
    SequenceClassifierOutput,
    TokenClassifierOutput,
    XVectorOutput,
)
from raysp.models.encoder import adapters
from raysp.models.encoder.encoder_fields import EncoderConfig, XVectorConfig
from raysp.models.encoder.heads import (
    AMSoftmaxLoss,
    LayerSum,
    blank_after_end,
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
from raysp.models.encoder.speech_model import Encoded, SpeechModel
from raysp.models.files.configuration import Config
from raysp.models.kernels.dropout import dropped


class ForCTC(SpeechModel):
    """The encoder with a linear head over the vocabulary; `pad_token_id` is the blank.

    With a mask and "exact" padding, frames after a row's end have the blank with probability 1, so that
    `logits.argmax(-1)` of a padded batch decodes to the texts of its rows alone. Without a mask the rows' ends are
    unknown.

    A language's adapter (MMS) is loaded with the weights (`target_lang`), or later by `load_adapter`.
    """

    gives: ClassVar[tuple[Capability, ...]] = (Capability.CTC,)
    head_name: ClassVar[str] = "lm_head"
    """Name of the head's weights in checkpoints."""
    target_lang: str | None = None

    def __init__(self, config: EncoderConfig, target_lang: str | None = None) -> None:
        """Build the model; `target_lang` is the language whose adapter `from_pretrained` loads."""
        super().__init__(config)
        if config.vocab_size is None:
            raise CheckpointError("vocab_size is None, expected the number of tokens: pass vocab_size=...")
        setattr(self, self.base_model_prefix, self.build_base())
        setattr(self, self.head_name, self.build_head(config.vocab_size))
        self.target_lang = target_lang
        if target_lang is not None:
            adapters.check_has_adapters(self, target_lang)

    def forward(
        self,
        input_values: Tensor,
        attention_mask: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        labels: Tensor | None = None,
    ) -> CausalLMOutput | tuple[Any, ...]:
        """Return logits_BTV, and the CTC loss if labels are given.

        Frames after the end of a row by `attention_mask` have the blank. `labels` are (B, L) ids; -100 and the blank
        are ignored. For the other arguments see the base model's `forward`.
        """
        if labels is not None:
            check_labels(labels, len(self.get_parameter(f"{self.head_name}.weight")))
        encoded = self.base_model.encoded(
            input_values,
            attention_mask,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
        )
        logits_BTV = self.head(dropped(encoded.last_hidden_state, self.config.final_dropout, self.training))
        # Of the logits before blanks are set, which are constants without a gradient.
        loss = None if labels is None else self._loss(logits_BTV, input_values, attention_mask, labels)
        if attention_mask is not None and self.padding == "exact":
            num_frames_B = self._decoded_frames(input_values, attention_mask)
            logits_BTV = blank_after_end(logits_BTV, num_frames_B, self.config.pad_token_id)
        output = CausalLMOutput(
            loss=loss,
            logits=logits_BTV,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )
        return self.returned(output, return_dict)

    def build_head(self, vocab_size: int) -> nn.Module:
        """Return a new head."""
        return nn.Linear(self.output_size, vocab_size)

    @property
    def head(self) -> nn.Module:
        """The layer over the vocabulary; rows of its `weight` are tokens."""
        return self.get_submodule(self.head_name)

    def _decoded_frames(self, inputs: Tensor, mask_BS: Tensor) -> Tensor:
        """Return the number of frames of each row alone."""
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

    @classmethod
    def _with_language(cls, config: Config, target_lang: str) -> Self:
        return cls(config, target_lang)  # type: ignore[arg-type]

    def _comes_later(self, name: str) -> bool:
        return self.target_lang is not None and (name.startswith("lm_head.") or ".adapter_layer." in name)

    def _complete(self, allow_pickle: bool) -> None:
        if self.target_lang is not None:
            self.load_adapter(self.target_lang, allow_pickle=allow_pickle)

    def load_adapter(self, target_lang: str = adapters.DEFAULT_LANG, *, allow_pickle: bool = False) -> None:
        """Load the adapter and head of another language of the checkpoint that this model was loaded from.

        Args:
            target_lang: Read from `adapter.<lang>.safetensors` beside the model's weights.
            allow_pickle: Read `adapter.<lang>.bin` if there are no safetensors (weights only, no code).
        """
        names = adapters.adapter_file_names(target_lang, allow_pickle=allow_pickle)
        adapters.check_has_adapters(self, target_lang)
        adapters.load_adapter(self, target_lang, self.origin_folder(names), allow_pickle=allow_pickle)
        self.target_lang = target_lang

    def save_adapter(self, folder: str | Path, target_lang: str) -> None:
        """Write this language's weights as `adapter.<lang>.safetensors`."""
        adapters.save_adapter(self, target_lang, Path(folder))

    def init_adapter_layers(self) -> None:
        """Initialise adapters and head at random, to train them alone."""
        adapters.init_adapter_layers(self)

    def _get_adapters(self) -> dict[str, Tensor]:
        return adapters.adapter_weights(self)


def add_encoder(
    model: "ForSequenceClassification | ForAudioFrameClassification | ForXVector", *, takes_adapter: bool = False
) -> None:
    """Set the base model of a head over classes, and the weights of its layer sum if configured.

    Raises:
        CheckpointError: The configuration adds an adapter, which makes the encoder's frames fewer, before a head that
            does not support it.
    """
    config = model.config
    if getattr(config, "add_adapter", False) and not takes_adapter:
        raise CheckpointError(f"{type(model).__name__} does not support add_adapter: set it to False in config.json")
    setattr(model, model.base_model_prefix, model.build_base())
    model.layer_weights = initial_layer_weights(config.num_hidden_layers) if config.use_weighted_layer_sum else None


def encoded_frames(
    model: "ForSequenceClassification | ForAudioFrameClassification | ForXVector",
    inputs: Tensor,
    mask_BS: Tensor | None,
    output_attentions: bool | None,
    output_hidden_states: bool | None,
) -> tuple[Tensor, Encoded]:
    """Return the frames (B, T, H) that a head over classes reads, and the output of its base model."""
    layer_sum = None if model.layer_weights is None else LayerSum(model.layer_weights)
    encoded = model.base_model.encoded(
        inputs,
        mask_BS,
        output_attentions=output_attentions,
        output_hidden_states=output_hidden_states,
        states=layer_sum,
    )
    return (encoded.last_hidden_state if layer_sum is None else layer_sum.total), encoded


def classes_output(
    model: SpeechModel, logits_BN: Tensor, encoded: Encoded, labels: Tensor | None, return_dict: bool | None
) -> SequenceClassifierOutput | tuple[Any, ...]:
    """Return the output of a head with classes or numbers for each row, with a loss if labels are given."""
    output = SequenceClassifierOutput(
        loss=None if labels is None else classification_loss(logits_BN, labels, model.config.problem_type),
        logits=logits_BN,
        hidden_states=encoded.hidden_states,
        attentions=encoded.attentions,
    )
    return model.returned(output, return_dict)


class ForSequenceClassification(SpeechModel):
    """The encoder with classes over the mean of its frames."""

    gives: ClassVar[tuple[Capability, ...]] = (Capability.CLASSES,)
    layer_weights: nn.Parameter | None

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config)
        add_encoder(self)
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
        """Return logits_BN, and a loss by `config.problem_type` if labels are given.

        `labels`: see `heads.classification_loss`. For the other arguments see the base model's `forward`.
        """
        frames_BTH, encoded = encoded_frames(
            self, input_values, attention_mask, output_attentions, output_hidden_states
        )
        valid_BT = None if attention_mask is None else self._pooled_frames(frames_BTH.shape[1], attention_mask)
        # Projected first, as in the original: a row without frames pools to zero, not to the bias.
        logits_BN = self.classifier(masked_mean(self.projector(frames_BTH), valid_BT))
        return classes_output(self, logits_BN, encoded, labels, return_dict)

    def _pooled_frames(self, num_frames: int, mask_BS: Tensor) -> Tensor:
        """Return valid_BT of the frames that the mean is over."""
        return self._get_feature_vector_attention_mask(num_frames, mask_BS)


class ForAudioFrameClassification(SpeechModel):
    """The encoder with classes for each frame, such as speakers."""

    gives: ClassVar[tuple[Capability, ...]] = (Capability.FRAME_CLASSES,)
    layer_weights: nn.Parameter | None

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config)
        add_encoder(self)
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
        """Return logits_BTN, and the cross entropy if one-hot labels (B, T, N) are given.

        With a mask and "exact" padding the loss excludes frames of padding, which the original includes. For the other
        arguments see the base model's `forward`.
        """
        frames_BTH, encoded = encoded_frames(
            self, input_values, attention_mask, output_attentions, output_hidden_states
        )
        logits_BTN = self.classifier(frames_BTH)
        valid_BT: Tensor | None = None
        if attention_mask is not None and self.padding == "exact":
            valid_BT = self._get_feature_vector_attention_mask(frames_BTH.shape[1], attention_mask)
        output = TokenClassifierOutput(
            loss=None if labels is None else frame_classification_loss(logits_BTN, labels, valid_BT),
            logits=logits_BTN,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )
        return self.returned(output, return_dict)


class ForXVector(SpeechModel):
    """The encoder with a TDNN that yields one vector per speaker (Snyder et al. 2018)."""

    gives: ClassVar[tuple[Capability, ...]] = (Capability.XVECTOR,)
    layer_weights: nn.Parameter | None
    config: XVectorConfig

    def __init__(self, config: XVectorConfig) -> None:
        super().__init__(config)
        add_encoder(self, takes_adapter=True)
        # The original takes hidden_size either way, and fails behind an adapter of another width.
        width = self.output_size if self._adapter_is_seen else config.hidden_size
        self.projector = nn.Linear(width, config.tdnn_dim[0])
        self.tdnn = tdnn_layers(config.tdnn_dim, config.tdnn_kernel, config.tdnn_dilation)
        self.feature_extractor = nn.Linear(2 * config.tdnn_dim[-1], config.xvector_output_dim)
        self.classifier = nn.Linear(config.xvector_output_dim, config.xvector_output_dim)
        self.objective = AMSoftmaxLoss(config.xvector_output_dim, config.num_labels)

    def _least_frames(self) -> int:
        """Return the number of frames that leaves two after the TDNN, the minimum for a standard deviation."""
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
        """Return embeddings and logits, both (B, E), and the margin loss if speaker numbers (B,) are given.

        For the other arguments see the base model's `forward`.
        """
        frames_BTH, encoded = encoded_frames(
            self, input_values, attention_mask, output_attentions, output_hidden_states
        )
        frames_BTC = self._tdnn(self.projector(frames_BTH))
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

    def _tdnn(self, frames_BTC: Tensor) -> Tensor:
        for layer in self.tdnn:
            frames_BTC = layer(frames_BTC)
        return frames_BTC

    @property
    def _adapter_is_seen(self) -> bool:
        """Whether the head reads the adapter's frames; a sum over layers has those before the adapter."""
        return self.config.add_adapter and self.layer_weights is None

    def _seen_frames(self, num_inputs_B: Tensor) -> Tensor:
        """Return the number of frames of each row that the head reads."""
        raise NotImplementedError

    def _tdnn_frames(self, mask_BS: Tensor) -> Tensor:
        """Return the number of valid frames of each row after the TDNN."""
        if self.padding == "reference":
            return self._get_tdnn_output_lengths(self._get_feat_extract_output_lengths(mask_BS.sum(-1)))
        seen_B = self._seen_frames(mask_BS.sum(-1))
        return tdnn_output_frames(seen_B, self.config.tdnn_kernel, self.config.tdnn_dilation).clamp(min=0)

    def _get_tdnn_output_lengths(self, input_lengths: Tensor) -> Tensor:
        """Return the original's number of frames, which ignores dilation and layer sums."""
        return tdnn_output_frames(input_lengths, self.config.tdnn_kernel)
