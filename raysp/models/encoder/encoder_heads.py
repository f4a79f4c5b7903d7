"""Models with a head on any encoder of speech, and several of them over one encoder.

An architecture adds its encoder and its name. The head is the first base, the architecture's base the second:
`class HubertForCTC(ForCTC, HubertPreTrainedModel)`. Inputs (B, S) are samples; inputs of an encoder of features are
(B, S, C). A config.json that names several classes in `architectures` describes a checkpoint with several heads, which
holds the encoder's weights once. The first class is the model; transformers loads any of the classes from it and
ignores the weights of other heads.

Legend: B batch, S samples or frames of features, T frames, H hidden, C channels of a TDNN layer, V vocabulary, L labels
of a row, N classes, E embedding.
"""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from raysp.capabilities import Capability
from raysp.errors import CheckpointError
from raysp.models.base.configuration import Config, short
from raysp.models.base.kernels import dropped
from raysp.models.base.modeling import Model
from raysp.models.base.outputs import (
    CausalLMOutput,
    ModelOutput,
    SequenceClassifierOutput,
    TokenClassifierOutput,
    XVectorOutput,
)
from raysp.models.base.row_layout import Layout
from raysp.models.base.weights import write_tensors
from raysp.models.encoder import languages
from raysp.models.encoder.heads import (
    AMSoftmaxLoss,
    LayerSum,
    check_labels,
    classification_loss,
    ctc_loss,
    frame_classification_loss,
    masked_mean,
    pooled_statistics,
    tdnn_layers,
    tdnn_output_frames,
)
from raysp.models.encoder.speech_model import Reading, SpeechModel
from raysp.models.encoder.transformer import EncoderConfig, XVectorConfig

NOT_BLANK = -1e4
"""Logit of all other tokens if the blank's is 0: its exponential is 0, and all floating-point types can hold it."""
PER_HEAD_FIELDS = ("architectures", "dtype")  # fields of a configuration that may differ between heads


class Head(SpeechModel):
    """An encoder with a head. The docstring of the class describes its labels."""

    def add_encoder(self, *, takes_adapter: bool = False) -> None:
        """Set the base model.

        Raises:
            CheckpointError: The configuration adds an adapter, which makes the encoder's frames fewer, before a head
                that does not support it.
        """
        if getattr(self.config, "add_adapter", False) and not takes_adapter:
            raise CheckpointError(f"{type(self).__name__} does not support add_adapter: set it to False in config.json")
        setattr(self, self.base_model_prefix, self.build_base())

    def forward(
        self,
        input_values: Tensor,
        attention_mask: Tensor | Layout | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        labels: Tensor | None = None,
    ) -> ModelOutput | tuple[Any, ...]:
        """Return the output of the head, with a loss if labels are given.

        For the arguments but `labels` see the base model's `forward`.
        """
        if labels is not None:
            self.check_labels(labels)
        layout, layer_sum = self.input_layout(input_values, attention_mask), self.layer_sum()
        states = () if layer_sum is None else (layer_sum,)
        encoded = self.encoded(input_values, layout, output_attentions, output_hidden_states, states=states)
        return self.returned(self.read(Reading(encoded, input_values, layout, layer_sum, labels)), return_dict)

    def check_labels(self, labels: Tensor) -> None:
        """Refuse labels that are wrong whatever the encoder returns."""


def labels_third(
    self: Head,
    input_values: Tensor,
    attention_mask: Tensor | Layout | None = None,
    labels: Tensor | None = None,
    output_attentions: bool | None = None,
    output_hidden_states: bool | None = None,
    return_dict: bool | None = None,
) -> ModelOutput | tuple[Any, ...]:
    """Return the output of a head: its `forward` with the arguments in the order of some classes of transformers."""
    return Head.forward(
        self, input_values, attention_mask, output_attentions, output_hidden_states, return_dict, labels
    )


def of_features(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Return a `forward` whose first argument is named `input_features`, of models of log-mel frames."""

    @functools.wraps(forward)
    def renamed(self: SpeechModel, input_features: Tensor, *args: Any, **options: Any) -> Any:  # noqa: ANN401
        return forward(self, input_features, *args, **options)

    model, inputs, *others = inspect.signature(forward).parameters.values()
    parameters = [model, inputs.replace(name="input_features"), *others]
    renamed.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return renamed


class ForCTC(Head):
    """The encoder with a linear head over the vocabulary; `pad_token_id` is the blank.

    With a mask, frames after a row's end have the blank with probability 1, so that `logits.argmax(-1)` of a padded
    batch decodes to the texts of its rows alone. Without a mask the rows' ends are unknown. Labels (B, L) are ids; -100
    and the blank are ignored.

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
        self.add_encoder(takes_adapter=True)
        setattr(self, self.head_name, self.build_head(config.vocab_size))
        self.target_lang = target_lang
        if target_lang is not None:
            languages.check_has_adapters(self, target_lang)

    def check_labels(self, labels: Tensor) -> None:
        """Refuse labels (B, L) that are neither tokens nor -100."""
        check_labels(labels, len(self.get_parameter(f"{self.head_name}.weight")))

    def read(self, reading: Reading) -> CausalLMOutput:
        """Return the output of the head: see the base."""
        layout, labels = reading.layout, reading.labels
        logits_BTV = self.head(dropped(reading.encoded.last_hidden_state, self.config.final_dropout, self.training))
        # Of the logits before blanks are set, which are constants without a gradient.
        loss = None if labels is None else self._loss(logits_BTV, layout, labels)
        if layout.counts_B is not None:
            num_frames_B = self._decoded_frames(reading.inputs, layout.counts_B)
            logits_BTV = blank_after_end(logits_BTV, num_frames_B, self.config.pad_token_id)
        return reading.output(CausalLMOutput, loss=loss, logits=logits_BTV)

    def build_head(self, vocab_size: int) -> nn.Module:
        """Return a new head."""
        return nn.Linear(self.output_size, vocab_size)

    @property
    def head(self) -> nn.Module:
        """The layer over the vocabulary; rows of its `weight` are tokens."""
        return self.get_submodule(self.head_name)

    def _decoded_frames(self, inputs: Tensor, num_inputs_B: Tensor) -> Tensor:
        """Return the number of frames of each row alone."""
        return self._get_feat_extract_output_lengths(num_inputs_B)

    def _loss(self, logits_BTV: Tensor, layout: Layout, labels_BL: Tensor) -> Tensor:
        return ctc_loss(
            logits_BTV,
            self.frame_layout(layout, logits_BTV.shape[1]).counts(logits_BTV.device),
            labels_BL,
            blank=self.config.pad_token_id,
            reduction=self.config.ctc_loss_reduction,
            zero_infinity=self.config.ctc_zero_infinity,
        )

    @classmethod
    def _with_language(cls, config: Config, target_lang: str) -> Self:
        return cls(config, target_lang)  # type: ignore[arg-type]

    def _comes_later(self, name: str) -> bool:
        return self.target_lang is not None and languages.is_of_language(name)

    def _complete(self, allow_pickle: bool) -> None:
        if self.target_lang is not None:
            self.load_adapter(self.target_lang, allow_pickle=allow_pickle)

    def load_adapter(self, target_lang: str = languages.DEFAULT_LANG, *, allow_pickle: bool = False) -> None:
        """Load the adapter and head of another language of the checkpoint that this model was loaded from.

        Args:
            target_lang: Read from `adapter.<lang>.safetensors` in the folder of the model.
            allow_pickle: Read `adapter.<lang>.bin` if there are no safetensors (weights only, no code).
        """
        names = languages.adapter_file_names(target_lang, allow_pickle=allow_pickle)
        languages.check_has_adapters(self, target_lang)
        path = languages.adapter_path(self.origin_folder(names), target_lang, allow_pickle)
        languages.exchange_adapter(self, languages.read_adapter(self, path))
        self.target_lang = target_lang

    def save_adapter(self, folder: str | Path, target_lang: str) -> None:
        """Write this language's weights as `adapter.<lang>.safetensors`."""
        languages.save_adapter(self, target_lang, Path(folder))

    def init_adapter_layers(self) -> None:
        """Initialise adapters and head at random, to train them alone."""
        languages.init_adapter_layers(self)

    def _get_adapters(self) -> dict[str, Tensor]:
        return languages.adapter_weights(self)


class WeighingLayers(Head):
    """A head over frames, or over a learned sum of the hidden states of all layers."""

    layer_weights: nn.Parameter | None

    def add_encoder(self, *, takes_adapter: bool = False) -> None:
        """Set the base model, and the weights of its layer sum if configured: see the base."""
        super().add_encoder(takes_adapter=takes_adapter)
        count = self.config.num_hidden_layers + 1  # the first layer's input, and each layer's output
        weights = nn.Parameter(torch.full((count,), 1 / count)) if self.config.use_weighted_layer_sum else None
        self.layer_weights = weights

    def layer_sum(self) -> LayerSum | None:
        """Return a receiver of the hidden states, if the head reads their learned sum."""
        return None if self.layer_weights is None else LayerSum(self.layer_weights)


def classes_output(model: SpeechModel, logits_BN: Tensor, reading: Reading) -> SequenceClassifierOutput:
    """Return the output of a head with classes or numbers for each row, with a loss if labels are given."""
    labels, problem_type = reading.labels, model.config.problem_type
    loss = None if labels is None else classification_loss(logits_BN, labels, problem_type)
    return reading.output(SequenceClassifierOutput, loss=loss, logits=logits_BN)


def blank_after_end(logits_BTV: Tensor, num_frames_B: Tensor, blank: int | None) -> Tensor:
    """Return logits in which frames after each row's end have the blank with probability 1, and no gradient.

    Logits are unchanged if the vocabulary has no such token; None is 0, as for `ctc_loss`.
    """
    _, num_frames, vocab_size = logits_BTV.shape
    blank = blank or 0
    if not 0 <= blank < vocab_size:
        return logits_BTV
    # `where`, not a product: frames after a row's end may hold any values.
    after_BT = torch.arange(num_frames, device=logits_BTV.device) >= num_frames_B[:, None]
    is_other_V = torch.arange(vocab_size, device=logits_BTV.device) != blank
    return torch.where(after_BT[:, :, None], is_other_V.to(logits_BTV.dtype) * NOT_BLANK, logits_BTV)


class ForSequenceClassification(WeighingLayers):
    """The encoder with classes over the mean of its frames; the loss is by `config.problem_type`.

    Labels: see `heads.classification_loss`.
    """

    gives: ClassVar[tuple[Capability, ...]] = (Capability.CLASSES,)

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config)
        self.add_encoder()
        self.projector = nn.Linear(config.hidden_size, config.classifier_proj_size)
        self.classifier = nn.Linear(config.classifier_proj_size, config.num_labels)

    def read(self, reading: Reading) -> SequenceClassifierOutput:
        """Return the output of the head: see the base."""
        frames_BTH = reading.frames
        valid_BT = self._pooled_layout(reading.layout, frames_BTH.shape[1]).mask
        # Projected first, as in the original: a row without frames pools to zero, not to the bias.
        logits_BN = self.classifier(masked_mean(self.projector(frames_BTH), valid_BT))
        return classes_output(self, logits_BN, reading)

    def _pooled_layout(self, layout: Layout, num_frames: int) -> Layout:
        """Return the layout of the frames that the mean is over."""
        return self.frame_layout(layout, num_frames)


class ForAudioFrameClassification(WeighingLayers):
    """The encoder with classes for each frame, such as speakers.

    Labels (B, T, N) are one-hot. With a mask the loss excludes frames of padding, which the original includes.
    """

    gives: ClassVar[tuple[Capability, ...]] = (Capability.FRAME_CLASSES,)

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config)
        self.add_encoder()
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)

    forward = labels_third  # type: ignore[assignment]  # the order of arguments is the original's

    def read(self, reading: Reading) -> TokenClassifierOutput:
        """Return the output of the head: see the base."""
        logits_BTN, labels = self.classifier(reading.frames), reading.labels
        valid_BT = self.frame_layout(reading.layout, logits_BTN.shape[1]).mask
        loss = None if labels is None else frame_classification_loss(logits_BTN, labels, valid_BT)
        return reading.output(TokenClassifierOutput, loss=loss, logits=logits_BTN)


class ForXVector(WeighingLayers):
    """The encoder with a TDNN that yields one vector per speaker (Snyder et al. 2018).

    Labels (B,) are numbers of speakers; embeddings and logits are (B, E).
    """

    gives: ClassVar[tuple[Capability, ...]] = (Capability.XVECTOR,)
    config: XVectorConfig

    def __init__(self, config: XVectorConfig) -> None:
        super().__init__(config)
        self.add_encoder(takes_adapter=True)
        # The original uses hidden_size either way, and fails after an adapter of another width.
        width = self.output_size if self._adapter_is_seen else config.hidden_size
        self.projector = nn.Linear(width, config.tdnn_dim[0])
        self.tdnn = tdnn_layers(config.tdnn_dim, config.tdnn_kernel, config.tdnn_dilation)
        self.feature_extractor = nn.Linear(2 * config.tdnn_dim[-1], config.xvector_output_dim)
        self.classifier = nn.Linear(config.xvector_output_dim, config.xvector_output_dim)
        self.objective = AMSoftmaxLoss(config.xvector_output_dim, config.num_labels)

    def _least_frames(self) -> int:
        """Return the number of frames that leaves two after the TDNN, the minimum for a standard deviation."""
        return 2 - tdnn_output_frames(0, self.config.tdnn_kernel, self.config.tdnn_dilation)

    def read(self, reading: Reading) -> XVectorOutput:
        """Return the output of the head: see the base."""
        counts_B, labels = reading.layout.counts_B, reading.labels
        frames_BTC = self.projector(reading.frames)
        for layer in self.tdnn:
            frames_BTC = layer(frames_BTC)
        num_frames_B = None if counts_B is None else self._tdnn_frames(counts_B)
        embeddings_BE = self.feature_extractor(pooled_statistics(frames_BTC, num_frames_B))
        logits_BE = self.classifier(embeddings_BE)
        loss = None if labels is None else self.objective(logits_BE, labels)
        return reading.output(XVectorOutput, loss=loss, logits=logits_BE, embeddings=embeddings_BE)

    @property
    def _adapter_is_seen(self) -> bool:
        """Whether the head reads the adapter's frames; a sum over layers has those before the adapter."""
        return self.config.add_adapter and self.layer_weights is None

    def _tdnn_frames(self, num_inputs_B: Tensor) -> Tensor:
        """Return the number of valid frames of each row after the TDNN."""
        seen_B = self._get_feat_extract_output_lengths(num_inputs_B, self._adapter_is_seen)
        return tdnn_output_frames(seen_B, self.config.tdnn_kernel, self.config.tdnn_dilation).clamp(min=0)


def with_encoder_of(model: Model, head: Model) -> Model:
    """Replace a head's encoder by a model's; return the head, on the model's device."""
    setattr(head, head.base_model_prefix, model.base_model)
    return head.to(model.device).eval()


def save_heads(models: Sequence[Model], folder: str | Path, *, shard_bytes: int = 5 * 10**9) -> None:
    """Write heads trained over one frozen encoder as one checkpoint.

    Args:
        models: Models of one architecture, such as a UniSpeechForCTC and a UniSpeechForSequenceClassification.
        folder: Receives config.json and safetensors; processor and tokenizer are saved separately.
        shard_bytes: Largest size of a file of weights.

    Raises:
        CheckpointError: Encoders or configurations differ, or two heads have weights of the same name.
    """
    first = models[0]
    _check_encoders(models)
    weights: dict[str, Tensor] = dict(first.stored_weights())
    for model in models[1:]:
        encoder = f"{model.base_model_prefix}."
        head = {name: value for name, value in model.stored_weights().items() if not name.startswith(encoder)}
        refuse_shared_names([*weights], [*head])
        weights.update(head)
    config = type(first.config).from_dict(_merged_fields(models))
    config.architectures = [type(model).__name__ for model in models]
    config.dtype = first.dtype
    config.save_pretrained(folder)
    write_tensors(Path(folder), weights, shard_bytes)


def refuse_shared_names(names: Sequence[str], other: Sequence[str]) -> None:
    """Raise CheckpointError if two heads have weights of the same name."""
    if shared := sorted({*names} & {*other}):
        raise CheckpointError(
            f"two heads have weights of the same name, {short(shared)}: save one of them, alone or with a CTC head"
        )


def _check_encoders(models: Sequence[Model]) -> None:
    first, expected = models[0], models[0].base_model.state_dict()
    for model in models[1:]:
        actual = model.base_model.state_dict() if type(model.base_model) is type(first.base_model) else {}
        differing = [name for name, value in expected.items() if not _same(actual.get(name), value)]
        if differing or actual.keys() != expected.keys():
            raise CheckpointError(
                f"the encoders of {type(model).__name__} and {type(first).__name__} differ: {short(differing)}: "
                "train the second head over the frozen encoder of the first"
            )


def _same(weight: Tensor | None, other: Tensor) -> bool:
    return weight is not None and weight.shape == other.shape and torch.equal(weight, other.to(weight.device))


def _merged_fields(models: Sequence[Model]) -> dict[str, Any]:
    """Return each field with the value that differs from the default, if any."""
    merged: dict[str, Any] = models[0].config.to_dict()
    defaults: Mapping[str, Any] = type(models[0].config)().to_dict()
    for model in models[1:]:
        for name, value in model.config.to_dict().items():
            if name in PER_HEAD_FIELDS or value in (merged.get(name), defaults.get(name)):
                continue
            if merged.get(name) != defaults.get(name):
                raise CheckpointError(f"configurations differ in {name}: {merged[name]!r} and {value!r}: set one value")
            merged[name] = value
    return merged
