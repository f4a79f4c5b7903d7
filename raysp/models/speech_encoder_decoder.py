"""A speech encoder and a text decoder that attends to its frames (Wang et al. 2021, arXiv:2104.06678).

Any encoder and decoder of this package can be combined; this file depends on no specific one.

Legend: B rows, S samples or frames of features, T frames of the encoder, L tokens, H hidden, V vocabulary.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raysp.capabilities import Capability
from raysp.checkpoints.access import KEYWORDS, REFUSED_KEYWORDS
from raysp.crossing import constant, number
from raysp.errors import CheckpointError
from raysp.models.auto import AutoConfig, AutoModel, AutoModelForCausalLM
from raysp.models.base.configuration import Config
from raysp.models.base.modeling import Model, resolved, warn_of_random
from raysp.models.base.outputs import BaseModelOutput, GenerateOutput, ModelOutput, Seq2SeqLMOutput
from raysp.models.base.row_layout import Layout
from raysp.models.base.weights import Value
from raysp.models.decoder.generation import GeneratingModel, generate, generators_of
from raysp.models.decoder.generation_config import GenerationConfig
from raysp.models.decoder.text_decoder import TextDecoder
from raysp.models.encoder.heads import check_labels
from raysp.models.registry import decoder_types, encoder_types


class SpeechEncoderDecoderConfig(Config):
    """Configurations of an encoder and a decoder, and the start and padding tokens of texts.

    `encoder` and `decoder` are configurations or their JSON objects. The defaults are wav2vec 2.0 and BERT, as in
    transformers.
    """

    model_type: ClassVar[str] = "speech-encoder-decoder"

    is_encoder_decoder: bool = True
    tie_word_embeddings: bool = False
    pad_token_id: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    decoder_start_token_id: int | None = None

    def __init__(self, **values: Any) -> None:  # noqa: ANN401 - any JSON value
        encoder, decoder = values.pop("encoder", None), values.pop("decoder", None)
        self.encoder: Any = _part("encoder", encoder, {"model_type": "wav2vec2"}, encoder_types())
        default = {"model_type": "bert", "is_decoder": True, "add_cross_attention": True}
        self.decoder: Any = _part("decoder", decoder, default, decoder_types())
        super().__init__(**values)

    @classmethod
    def from_encoder_decoder_configs(cls, encoder_config: Config, decoder_config: Config, **values: Any) -> Self:  # noqa: ANN401
        """Combine two configurations; enable cross-attention in the decoder's."""
        decoder: Any = decoder_config
        decoder.is_decoder = decoder.add_cross_attention = True
        return cls(encoder=encoder_config.to_dict(), decoder=decoder_config.to_dict(), **values)

    def to_dict(self) -> dict[str, Any]:
        """Return all values as plain JSON types, with the two parts nested."""
        return {**super().to_dict(), "encoder": self.encoder.to_dict(), "decoder": self.decoder.to_dict()}

    @property
    def encoder_width(self) -> int:
        """Width of the encoder's frames: of its adapter if it has one."""
        return int(getattr(self.encoder, "last_size", self.encoder.hidden_size))

    @property
    def has_projection(self) -> bool:
        """Whether `enc_to_dec_proj` projects frames to the decoder's width, by the rule of transformers.

        The rule uses `output_hidden_size` of the encoder even if no adapter produces that width.
        """
        if getattr(self.decoder, "cross_attention_hidden_size", None) is not None:
            return False
        declared = getattr(self.encoder, "output_hidden_size", None) or self.encoder.hidden_size
        return (declared, self.encoder_width) != (self.decoder.hidden_size, self.decoder.hidden_size)

    def validate(self) -> None:
        """Raise CheckpointError unless the widths of encoder and decoder fit."""
        width = getattr(self.decoder, "cross_attention_hidden_size", None)
        if width is not None and width != self.encoder_width:
            raise CheckpointError(
                f"decoder's cross_attention_hidden_size is {width}, expected the width of the encoder's frames "
                f"{self.encoder_width}, or None for a projection"
            )


def _part(name: str, value: Any, default: dict[str, Any], supported: Sequence[str]) -> Config:  # noqa: ANN401
    """Return the configuration of one part."""
    if isinstance(value, Config) and type(value).model_type in supported:
        return value
    value = value.to_dict() if isinstance(value, Config) else value
    values = default if value is None else value
    model_type = values.get("model_type") if isinstance(values, Mapping) else values
    if model_type not in supported:
        raise CheckpointError(
            f"{name} has model_type {model_type!r}, expected one of {', '.join(supported)}: use a supported {name}"
        )
    return AutoConfig.for_model(**values)


class SpeechEncoderDecoderModel(GeneratingModel):
    """An encoder of speech and a decoder of text.

    Args:
        config: Configuration of both parts. A missing part is randomly initialised.
        encoder: A base model of an encoder, without a head.
        decoder: A text decoder with cross attention.
    """

    config_class: ClassVar[type[Config]] = SpeechEncoderDecoderConfig
    base_model_prefix: ClassVar[str] = "speech_encoder_decoder"
    gives: ClassVar[tuple[Capability, ...]] = (Capability.TEXT_DECODER,)
    training_only: ClassVar[tuple[str, ...]] = ("masked_spec_embed",)
    config: SpeechEncoderDecoderConfig

    def __init__(
        self,
        config: SpeechEncoderDecoderConfig | None = None,
        encoder: Model | None = None,
        decoder: Model | None = None,
    ) -> None:
        if config is None:
            if encoder is None or decoder is None:
                raise ValueError("neither a config nor both encoder and decoder given, expected one or the other")
            config = SpeechEncoderDecoderConfig.from_encoder_decoder_configs(encoder.config, decoder.config)
        if not isinstance(config, SpeechEncoderDecoderConfig):
            raise ValueError(f"config is of {type(config).__name__}, expected SpeechEncoderDecoderConfig")
        config.validate()
        config.tie_word_embeddings = False  # the decoder has its own field
        super().__init__(config)
        self.encoder: Any = AutoModel.from_config(config.encoder) if encoder is None else encoder
        self.decoder: Any = AutoModelForCausalLM.from_config(config.decoder) if decoder is None else decoder
        _check_parts(self.encoder, self.decoder)
        for part, part_config in ((self.encoder, config.encoder), (self.decoder, config.decoder)):
            for module in part.modules():  # model and part share one configuration object
                if getattr(module, "config", None) is part.config and module is not part:
                    module.config = part_config
            part.config = part_config
        self.enc_to_dec_proj: nn.Linear | None = None
        if config.has_projection:
            self.enc_to_dec_proj = nn.Linear(config.encoder_width, config.decoder.hidden_size)

    @classmethod
    def from_encoder_decoder_pretrained(
        cls,
        encoder_pretrained_model_name_or_path: str | Path | None = None,
        decoder_pretrained_model_name_or_path: str | Path | None = None,
        *model_args: Any,  # noqa: ANN401
        **kwargs: Any,  # noqa: ANN401
    ) -> Self:
        """Combine two pretrained checkpoints; missing weights, such as cross-attention, are randomly initialised.

        Args:
            encoder_pretrained_model_name_or_path: Checkpoint of a speech model, with or without a head.
            decoder_pretrained_model_name_or_path: Checkpoint of a text model that has a decoder.
            model_args: Further arguments of the encoder's class.
            kwargs: With the prefix `encoder_` or `decoder_`: configuration values of that part, arguments of its
                `from_pretrained`, or the part itself (`..._config`, `..._model`). Without a prefix: configuration
                values of this model, or access to both checkpoints (`token`, `cache_dir`, ...).

        Returns:
            The model in eval mode.
        """
        of_encoder, of_decoder, own = _routed(kwargs)
        shared = {name: own.pop(name) for name in (*KEYWORDS, *REFUSED_KEYWORDS) if name in own and name != "revision"}
        of_encoder, of_decoder = {**shared, **of_encoder}, {**shared, **of_decoder}
        encoder = of_encoder.pop("model", None)
        if encoder is None:
            name = _named("encoder", encoder_pretrained_model_name_or_path)
            encoder = AutoModel.from_pretrained(name, *model_args, strict=False, **of_encoder)
        decoder = of_decoder.pop("model", None)
        if decoder is None:
            name = _named("decoder", decoder_pretrained_model_name_or_path)
            of_decoder = {**({} if "config" in of_decoder else AS_DECODER), **of_decoder}
            decoder = AutoModelForCausalLM.from_pretrained(name, strict=False, **of_decoder)
        config = SpeechEncoderDecoderConfig.from_encoder_decoder_configs(encoder.config, decoder.config, **own)
        model = cls(config, encoder, decoder)
        if model.enc_to_dec_proj is not None:
            model.enc_to_dec_proj.to(decoder.device, decoder.dtype)
        new = {f"{name}.{weight}" for name in ("encoder", "decoder") for weight in getattr(model, name).new_weights}
        projection = {name for name in model.state_dict() if name.startswith("enc_to_dec_proj.")}
        warn_of_random(f"{encoder_pretrained_model_name_or_path} with a decoder", projection)
        model.new_weights = frozenset({*new, *projection})
        return model.eval()

    @property
    def speech_encoder(self) -> Model:
        """The encoder."""
        encoder: Model = self.encoder
        return encoder

    # Weights

    def tied_weights(self) -> dict[str, str]:
        """Return the decoder's tied weights."""
        return {f"decoder.{name}": f"decoder.{source}" for name, source in self.decoder.tied_weights().items()}

    def _fit_names(self, values: Mapping[str, Value]) -> tuple[dict[str, Value], list[str]]:
        of_decoder = {n.removeprefix("decoder."): value for n, value in values.items() if n.startswith("decoder.")}
        named = {f"decoder.{name}": value for name, value in self.decoder.current_names(of_decoder).items()}
        return {name: value for name, value in values.items() if not name.startswith("decoder.")} | named, []

    def _may_differ(self, name: str, strict: bool) -> bool:
        """Return whether a weight is used in training only; other weights must be in the checkpoint."""
        if name.startswith("encoder."):
            return bool(self.encoder.is_training_only(name.removeprefix("encoder.")))
        return False

    def init_weights(self) -> Self:
        """Initialise all weights from torch's generator; return the model."""
        self.encoder.init_weights()
        self.decoder.init_weights()
        self._init_new_model()
        return self

    def _init_new_model(self) -> None:
        """Initialise the projection only: both parts are initialised already."""
        if self.enc_to_dec_proj is not None:
            self._init_module(self.enc_to_dec_proj)

    @property
    def initial_deviation(self) -> float:
        """Standard deviation of initial weights, of the decoder."""
        return float(self.decoder.initial_deviation)

    def get_encoder(self) -> Model:
        """Return the model of speech."""
        return cast(Model, self.encoder)

    def get_decoder(self) -> Model:
        """Return the text decoder."""
        return cast(Model, self.decoder)

    def get_input_embeddings(self) -> nn.Module:
        """Return the decoder's embeddings of tokens."""
        return cast(nn.Module, self.decoder.get_input_embeddings())

    def get_output_embeddings(self) -> nn.Module:
        """Return the decoder's layer that computes logits."""
        return cast(nn.Module, self.decoder.get_output_embeddings())

    def resize_token_embeddings(
        self, num_tokens: int | None = None, pad_to_multiple_of: int | None = None
    ) -> nn.Module:
        """Change the decoder's vocabulary size; new tokens start as the mean of the old."""
        return cast(nn.Module, self.decoder.resize_token_embeddings(num_tokens, pad_to_multiple_of))

    def freeze_feature_encoder(self) -> None:
        """Freeze the encoder's convolutional front end, if it has one (Wav2Vec2-BERT has none)."""
        self.encoder.freeze_feature_encoder()

    # Forward

    def forward(
        self,
        inputs: Tensor | None = None,
        attention_mask: Tensor | Layout | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        encoder_outputs: Any = None,  # noqa: ANN401 - an output, a mapping or a tuple
        past_key_values: Any = None,  # noqa: ANN401 - a cache, or tuples
        decoder_inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        input_values: Tensor | None = None,
        input_features: Tensor | None = None,
        return_dict: bool | None = None,
        **kwargs: Any,  # noqa: ANN401
    ) -> Seq2SeqLMOutput | tuple[Any, ...]:
        """Encode speech and return logits of the next tokens.

        Args:
            inputs: (B, S) normalised samples, or (B, S, F) features.
            attention_mask: (B, S), nonzero where a sample or feature frame belongs to its row.
            decoder_input_ids: (B, L) tokens; with `past_key_values` the new tokens; None: made from `labels`.
            decoder_attention_mask: (B, L), nonzero where a token is attended to; with a cache, for cached tokens too.
            encoder_outputs: Output of the encoder, in place of `inputs`: (last_hidden_state, ...).
            past_key_values: The cache of an earlier call, or N tuples of 4 tensors. It is not changed.
            decoder_inputs_embeds: (B, L, H) in place of `decoder_input_ids`.
            labels: (B, L) ids of the text, within the vocabulary; -100 is ignored by the loss.
            use_cache: Return `past_key_values`; None: the value of the decoder's configuration.
            output_attentions: Return attention weights of both parts.
            output_hidden_states: Return hidden states of both parts.
            input_values: The same as `inputs`.
            input_features: The same as `inputs`.
            return_dict: False returns a plain tuple.
            kwargs: Arguments of the decoder, with the prefix `decoder_`, and of the encoder, without.
        """
        if labels is not None:
            check_labels(labels, self.config.decoder.vocab_size)
        with_weights = resolved(output_attentions, self.config.output_attentions)
        with_states = resolved(output_hidden_states, self.config.output_hidden_states)
        of_decoder = {n.removeprefix("decoder_"): value for n, value in kwargs.items() if n.startswith("decoder_")}
        of_encoder = {name: value for name, value in kwargs.items() if not name.startswith("decoder_")}
        if encoder_outputs is None:
            encoder_outputs = self.encoder(
                _one_input(inputs, input_values, input_features),
                attention_mask=attention_mask,
                output_attentions=with_weights,
                output_hidden_states=with_states,
                return_dict=True,
                **of_encoder,
            )
        encoded = _as_output(encoder_outputs)
        frames_BTH = self._projected(encoded.last_hidden_state)
        if labels is not None and decoder_input_ids is None and decoder_inputs_embeds is None:
            decoder_input_ids = self.prepare_decoder_input_ids_from_labels(labels)
        decoded = self.decoder(
            input_ids=decoder_input_ids,
            attention_mask=decoder_attention_mask,
            encoder_hidden_states=frames_BTH,
            encoder_attention_mask=self._frame_mask(frames_BTH, attention_mask),
            inputs_embeds=decoder_inputs_embeds,
            past_key_values=past_key_values,
            use_cache=use_cache,
            output_attentions=with_weights,
            output_hidden_states=with_states,
            return_dict=True,
            **of_decoder,
        )
        output = Seq2SeqLMOutput(
            loss=None if labels is None else _loss(decoded.logits, labels),
            logits=decoded.logits,
            past_key_values=decoded.past_key_values,
            decoder_hidden_states=decoded.hidden_states,
            decoder_attentions=decoded.attentions,
            cross_attentions=decoded.cross_attentions,
            encoder_last_hidden_state=frames_BTH,
            encoder_hidden_states=encoded.hidden_states,
            encoder_attentions=encoded.attentions,
        )
        return self.returned(output, return_dict)

    def _projected(self, frames_BTH: Tensor) -> Tensor:
        return frames_BTH if self.enc_to_dec_proj is None else self.enc_to_dec_proj(frames_BTH)

    def _frame_mask(self, frames_BTH: Tensor, attention_mask: Tensor | Layout | None) -> Tensor | None:
        """Return the mask of frames for a mask of samples or feature frames; None without padding."""
        if attention_mask is None:
            return None
        layout = Layout.of(attention_mask, attention_mask) if isinstance(attention_mask, Tensor) else attention_mask
        mask_BT: Tensor | None = self.encoder.frame_layout(layout, frames_BTH.shape[1]).mask
        return mask_BT

    def prepare_decoder_input_ids_from_labels(self, labels: Tensor) -> Tensor:
        """Return labels (B, L) shifted right after `decoder_start_token_id`, with padding in place of -100."""
        return shift_tokens_right(labels, self.config.pad_token_id, self.config.decoder_start_token_id)

    def generate(
        self,
        inputs: Tensor | None = None,
        attention_mask: Tensor | Layout | None = None,
        *,
        input_values: Tensor | None = None,
        input_features: Tensor | None = None,
        encoder_outputs: Any = None,  # noqa: ANN401 - an output, a mapping or a tuple
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        generation_config: GenerationConfig | None = None,
        generator: torch.Generator | None = None,
        generators: Sequence[torch.Generator] | None = None,
        **options: Any,  # noqa: ANN401 - fields of GenerationConfig
    ) -> Tensor | GenerateOutput:
        """Generate a text for each row of speech, in the current mode of the model (see `eval`).

        Args:
            inputs: (B, S) normalised samples, or (B, S, F) features; or one of the two names below.
            attention_mask: (B, S), nonzero where a sample or feature frame belongs to its row.
            input_values: The same as `inputs`.
            input_features: The same as `inputs`.
            encoder_outputs: Output of the encoder, in place of `inputs`.
            decoder_input_ids: (B, T) tokens to start from; a missing start token is added.
            decoder_attention_mask: (B, T), nonzero where such a token is attended to.
            generation_config: Options, in place of the model's; of raysp or of transformers.
            generator: Random generator for sampling.
            generators: One per row, so that samples do not depend on the batch.
            options: Options by name, in place of either; see `GenerationConfig`.

        Returns:
            Tokens (B * num_return_sequences, T) with the start token; rows are padded after their end.
            `GenerateOutput` with `return_dict_in_generate=True`.
        """
        merged = self._options(generation_config, options)
        with torch.no_grad():
            if encoder_outputs is None:
                speech = _one_input(inputs, input_values, input_features)
                encoder_outputs = self.encoder.encode(speech, self.encoder.input_layout(speech, attention_mask))
            frames_BTH = self._projected(_as_output(encoder_outputs).last_hidden_state)
        prompt_BL, mask_BL = self._prompt(merged, len(frames_BTH), decoder_input_ids, decoder_attention_mask)
        return generate(
            self.decoder,
            merged,
            prompt_BL,
            encoder_BSH=frames_BTH,
            encoder_mask_BS=self._frame_mask(frames_BTH, attention_mask),
            prompt_mask_BT=mask_BL,
            generators=generators_of(generator, generators),
        )

    def _prompt(
        self, options: GenerationConfig, batch: int, ids_BL: Tensor | None, mask_BL: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Return the tokens to start from, with the start token first, and their mask."""
        first_B1 = constant(options.start_tokens(self.config), self.device)[:, None].expand(batch, 1)
        if ids_BL is None:
            return first_B1, None
        if number((ids_BL[:, :1] != first_B1).all()):
            ids_BL = torch.cat([first_B1, ids_BL], 1)
            mask_BL = None if mask_BL is None else F.pad(mask_BL, (1, 0), value=1)
        return ids_BL, mask_BL


AS_DECODER = {"is_decoder": True, "add_cross_attention": True}
OWN_FIELDS = ("decoder_start_token_id",)


def shift_tokens_right(labels_BL: Tensor, pad_token_id: int | None, decoder_start_token_id: int | None) -> Tensor:
    """Return labels (B, L) one place to the right, with the start token first and padding in place of -100."""
    if decoder_start_token_id is None:
        raise ValueError("config.decoder_start_token_id is None, expected the start token of texts: set it")
    if pad_token_id is None:
        raise ValueError("config.pad_token_id is None, expected the padding token of texts: set it")
    shifted_BL = F.pad(labels_BL[:, :-1], (1, 0), value=decoder_start_token_id)
    return shifted_BL.masked_fill(shifted_BL == -100, pad_token_id)


def _loss(logits_BLV: Tensor, labels_BL: Tensor) -> Tensor:
    return F.cross_entropy(logits_BLV.flatten(0, 1), labels_BL.reshape(-1).to(logits_BLV.device))


def _one_input(inputs: Tensor | None, input_values: Tensor | None, input_features: Tensor | None) -> Tensor:
    """Return the input of the encoder, passed under one of three names."""
    tensors = [value for value in (inputs, input_values, input_features) if value is not None]
    if len(tensors) != 1:
        raise ValueError(f"{len(tensors)} of inputs, input_values and input_features given, expected one")
    return tensors[0]


def _as_output(values: Mapping[str, Any] | ModelOutput | Sequence[Any]) -> BaseModelOutput:
    """Return (last_hidden_state, hidden_states, attentions) of a mapping or a tuple; the last two may be missing."""
    names = ("last_hidden_state", "hidden_states", "attentions")
    named = values if isinstance(values, Mapping | ModelOutput) else dict(zip(names, values, strict=False))
    return BaseModelOutput(**{name: named[name] for name in names if name in named})


def _check_parts(encoder: Model, decoder: Model) -> None:
    if not isinstance(decoder, TextDecoder):
        raise CheckpointError(
            f"decoder is {type(decoder).__name__}, expected a text decoder, of {', '.join(decoder_types())}"
        )
    if isinstance(encoder, TextDecoder) or encoder.base_model is not encoder:
        raise CheckpointError(f"encoder is {type(encoder).__name__}, expected a speech model without a head")


def _named(part: str, name: str | Path | None) -> str | Path:
    if name is None:
        raise ValueError(f"{part}_pretrained_model_name_or_path and {part}_model are None, expected one of them")
    return name


def _routed(kwargs: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Return the arguments for the encoder, for the decoder, and for the whole model."""
    parts: tuple[dict[str, Any], dict[str, Any], dict[str, Any]] = ({}, {}, {})
    for name, value in kwargs.items():
        for part, prefix in zip(parts, ("encoder_", "decoder_", ""), strict=True):
            # Some fields of the model begin with a part's prefix.
            if name.startswith(prefix) and (name not in OWN_FIELDS or not prefix):
                part[name.removeprefix(prefix)] = value
                break
    return parts
