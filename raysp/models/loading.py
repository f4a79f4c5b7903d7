"""Checkpoint folders: their check before work, and loading of models, feature extractor and tokenizer."""

import contextlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch

import raysp.models
from raysp.capabilities import TEXT, Capability
from raysp.checkpoints.contents import announced, languages_of, misnamed, refuse_adapter
from raysp.checkpoints.hub import local_checkpoint
from raysp.errors import CheckpointError, PlanError
from raysp.models.base.modeling import Model
from raysp.models.base.outputs import ModelOutput
from raysp.models.base.placing import built
from raysp.models.base.row_layout import Layout
from raysp.models.base.weights import Fit, TensorHeader, hold_equal, read_headers
from raysp.models.encoder.encoder_heads import ForCTC, refuse_shared_names, with_encoder_of
from raysp.models.encoder.heads import layer_weights_of
from raysp.models.encoder.languages import (
    LanguageSwitch,
    adapter_of,
    check_adapter,
    language_tokenizer,
    tokenizer_adapter,
)
from raysp.models.encoder.speech_model import Reading
from raysp.models.features.processors import FeatureExtractor, read_feature_extractor_config
from raysp.models.labelled_passes import OWN, ModelPass
from raysp.models.labelled_passes import CheckpointSummary as CheckpointSummary
from raysp.models.registry import COMPOSITE, capabilities_of, config_class, model_classes, module_of, read_config
from raysp.models.tokenizers.head_tokens import check_head, check_ids, check_tokens
from raysp.models.tokenizers.named_tokenizers import CTCTokenizer, TextOrCTCTokenizer, read_tokenizer

EXTRACTORS = {  # of model types that read log-mel frames
    "parakeet_ctc": "ParakeetFeatureExtractor",
    "parakeet_encoder": "ParakeetFeatureExtractor",
    "parakeet_rnnt": "ParakeetFeatureExtractor",
    "parakeet_tdt": "ParakeetFeatureExtractor",
    "wav2vec2-bert": "SeamlessM4TFeatureExtractor",
}
PROCESSORS = {
    "ParakeetProcessor": "ParakeetFeatureExtractor",
    "Wav2Vec2BertProcessor": "SeamlessM4TFeatureExtractor",
    "Wav2Vec2Processor": "Wav2Vec2FeatureExtractor",
}
MAX_SAMPLE_RATE = 768_000  # the highest rate of audio formats


def load_feature_extractor(folder: str | Path) -> FeatureExtractor:
    """Load the feature extractor of a checkpoint.

    Raises:
        CheckpointError: It is unknown, or its output is not the model's input.
    """
    folder = Path(folder)
    values, config = read_feature_extractor_config(folder), read_config(folder)
    speech = config.get("encoder") or {} if config.get("model_type") == COMPOSITE else config
    model_type = str(speech.get("model_type"))
    name = EXTRACTORS.get(model_type, "Wav2Vec2FeatureExtractor")
    expected = getattr(raysp.models, name)
    kind = values.get("feature_extractor_type")
    if kind is None:  # older files name the processor instead
        kind = PROCESSORS.get(values.get("processor_class", ""), name)
    if kind not in (name, *expected.older_names):
        raise CheckpointError(
            f"{folder}: feature_extractor_type is {kind!r}, expected {name!r} for model_type "
            f"{speech.get('model_type')!r}: use the preprocessor_config.json that was saved with this model"
        )
    extractor: FeatureExtractor = expected.of_settings(values, folder)
    if model_type in EXTRACTORS:
        module_of(model_type).check_features(folder, extractor, speech)
    return extractor


def check_checkpoint(folder: str | Path, *, is_announced: bool = True) -> CheckpointSummary:
    """Check a checkpoint folder or hub id without reading its weights, and return its description.

    Args:
        folder: the checkpoint.
        is_announced: whether a multilingual checkpoint is used in its tokenizer's language. Otherwise this language
            may differ from the weights' (see `CheckpointSummary.contradiction`), and each output names a language.

    Raises:
        CheckpointError: Files are missing, damaged, unsafe or inconsistent.
    """
    folder = local_checkpoint(folder)
    refuse_adapter(folder)
    classes = model_classes(folder)
    headers = read_headers(folder)
    models = [_built_without_weights(cls, folder, len(headers)) for cls in classes]
    model = models[0]
    fits = _fits(folder, models, headers)
    weights = {name: header for fit in fits for name, header in fit.values.items()}
    config: Any = model.config
    gives = {capability for head in models for capability in head.gives}
    spoken = _spoken(folder, config, is_announced=is_announced) if Capability.CTC in gives else Spoken()
    vocab_size = spoken.vocab_size or (_checked_vocab_size(folder, config, spoken.adapter) if TEXT & gives else None)
    sample_rate = _sample_rate(folder)
    # Other heads than the model's, and heads of training.
    unused = {*fits[0].unused, *(name for name in fits[0].values if not model.gives and model.is_of_head(name))}
    unused |= {name for name in fits[0].difference.unexpected if not model.is_training_only(name)}
    return CheckpointSummary(
        path=folder,
        **stored(weights),
        sample_rate=sample_rate,
        vocab_size=vocab_size,
        **_described(models, sample_rate),
        unused=tuple(sorted({name.partition(".")[0] for name in unused})),
        language=spoken.language,
        adapter=None if spoken.adapter is None else spoken.adapter.name,
        contradiction=spoken.contradiction,
    )


def _described(models: Sequence[Model], sample_rate: int) -> dict[str, Any]:
    """Return the fields of a summary that follow from the classes and configurations of models."""
    model = models[0]
    gives = tuple(dict.fromkeys(capability for head in models for capability in capabilities_of(type(head))))
    config: Any = model.config
    encoder = getattr(config, "encoder_config", getattr(config, "encoder", config))
    # Values at the widest place of the front end, and of a layer with its input, inner and output tensors.
    widths = 8 * encoder.hidden_size + 2 * encoder.intermediate_size
    activations = max(sample_rate / model.hidden_stride * widths, encoder.front_end_values(sample_rate))
    return {
        "model_type": config.model_type,
        "architecture": " and ".join(type(head).__name__ for head in models),
        "min_samples": max(head.min_samples for head in models),
        "frame_stride": model.frame_stride,
        "hidden_size": encoder.hidden_size,
        "num_layers": _num_layers(config),
        "gives": gives,
        "receptive_samples": model.receptive_samples,
        "hidden_stride": model.hidden_stride,
        "activations_per_second": activations,
        "output_size": model.output_size,
        "xvector_size": config.xvector_output_dim if Capability.XVECTOR in gives else None,
        "labels": labels_of(config) if {Capability.CLASSES, Capability.FRAME_CLASSES} & {*gives} else (),
        "problem_type": config.problem_type,
        "num_hidden_states": encoder.num_hidden_layers + 1,
        "has_layer_weights": any(layer_weights_of(head) is not None for head in models),
    }


def reads_kind(folder: Path) -> bool:
    """Return whether raysp has the model that a checkpoint names, regardless of its weights and other files."""
    headers = read_headers(folder)
    try:
        configs = [(cls, cls.config_class.from_pretrained(folder)) for cls in model_classes(folder)]
        if any(_num_layers(config) > len(headers) for _, config in configs):
            return True
        for cls, _ in configs:
            _built_without_weights(cls, folder, len(headers))
    except CheckpointError:
        return False
    return True


class Spoken(NamedTuple):
    """Language of the weights of a checkpoint."""

    language: str | None = None
    """Announced language of the weights; None: not announced, or contradicted by the weights."""
    adapter: Path | None = None
    """File whose values replace the weights."""
    contradiction: str = ""
    """Reason why the weights do not belong to the announced language."""
    vocab_size: int | None = None
    """Size of the head, if its tokens are unknown."""


def _spoken(folder: Path, config: Any, *, is_announced: bool) -> Spoken:  # noqa: ANN401 - of any model
    """Return the language of a checkpoint with a CTC head.

    Raises:
        CheckpointError: the announced language, which is used, is not the language of the weights.
    """
    try:
        adapter = announced_adapter(folder)
        if not is_announced and languages_of(folder):
            _checked_vocab_size(folder, config, adapter)
        return Spoken(announced(folder), adapter)
    except CheckpointError as error:
        if is_announced or not languages_of(folder):
            raise
        return Spoken(contradiction=str(error), vocab_size=int(config.vocab_size))


def announced_adapter(folder: Path) -> Path | None:
    """Return the adapter of the tokenizer's language, if its values replace the weights.

    Raises:
        CheckpointError: the weights belong to another language.
    """
    languages, language = languages_of(folder), announced(folder)
    return None if language not in languages else tokenizer_adapter(folder, languages, language)


def check_languages(checkpoint: CheckpointSummary) -> None:
    """Check that a checkpoint can be used with languages other than the announced one.

    Raises:
        CheckpointError: it has one vocabulary or no adapter layers, or another backend runs it.
    """
    folder = checkpoint.path
    names = languages_of(folder)
    if checkpoint.backend != OWN and names:
        raise CheckpointError(
            f"{folder}: the languages of a CTC checkpoint are those of backend='torch', and this one runs by "
            f"{checkpoint.backend!r}: leave backend out, or write the weights of one language into the checkpoint"
        )
    if (
        not names
        or getattr(config_class(checkpoint.model_type).from_pretrained(folder), "adapter_attn_dim", None) is None
    ):
        state = "one vocabulary" if not names else "no adapter layers (config.json, adapter_attn_dim)"
        raise CheckpointError(
            f"{folder}: language is for checkpoints with a text decoder, or with adapters of languages such as "
            f"facebook/mms-1b-all; {checkpoint.architecture} has {state}: leave language out"
        )


def check_language(checkpoint: CheckpointSummary, language: str) -> CheckpointSummary:
    """Check a language of a checkpoint without reading weights, and return the description with its vocabulary.

    Raises:
        PlanError: the checkpoint does not have the language.
        CheckpointError: as `check_languages`; or the file of the language is missing, or does not fit.
        StoreError: the adapter cannot be fetched.
    """
    check_languages(checkpoint)
    folder = checkpoint.path
    if why := misnamed(language, languages_of(folder)):
        raise PlanError(f"{folder}: {why}")
    config: Any = config_class(checkpoint.model_type).from_pretrained(folder)
    path = adapter_of(folder, language, is_own=language == checkpoint.language)
    size = checkpoint.vocab_size if path is None else check_adapter(config, path)
    tokenizer = language_tokenizer(folder, language)
    check_head(folder, tokenizer, int(size or 0), config, f"vocab.json, {language!r}")
    return replace(checkpoint, vocab_size=size, language=language, adapter=None if path is None else path.name)


def _fits(folder: Path, models: list[Model], headers: Mapping[str, TensorHeader]) -> list[Fit[TensorHeader]]:
    """Return the fit of a checkpoint's weights to its model, or heads, after a check that it has exactly these."""
    first, *more = models
    if more and any(model.base_model is model for model in models):
        names = " and ".join(type(model).__name__ for model in models)
        raise CheckpointError(f"{folder / 'config.json'}: architectures are {names}, expected heads over one encoder")
    for other in more:
        heads = [name for name in first.stored_weights() if not name.startswith(first.base_model_prefix + ".")]
        refuse_shared_names(heads, [*other.stored_weights()])
    fits = [model.fit(headers, folder, are_equal=partial(hold_equal, folder), strict=True) for model in models]
    used = {name for fit in fits for name in fit.values}  # weights of one head are unexpected for the other heads
    for fit in fits:
        fit.refused.without(used & {*fit.refused.unexpected}).check(folder)
    return fits


def labels_of(config: Any) -> tuple[str, ...]:  # noqa: ANN401 - of any model
    """Return the names of the classes of a configuration, in order."""
    names = config.id2label or {index: f"LABEL_{index}" for index in range(config.num_labels)}
    return tuple(names[index] for index in range(config.num_labels))


def _built_without_weights(cls: type[Model], folder: Path, num_weights: int) -> Model:
    config: Any = cls.config_class.from_pretrained(folder)
    where = folder / "config.json"
    if _num_layers(config) > num_weights:
        raise CheckpointError(
            f"{where}: num_hidden_layers is {_num_layers(config)}, but the checkpoint has {num_weights} weights: "
            "use the config.json that was saved with these weights"
        )
    return built(cls, config, where)


def _decoder_of(config: Any) -> Any:  # noqa: ANN401 - of any model
    """Return the configuration of the text decoder, if there is one; other models ignore a field of this name."""
    return config.decoder if config.model_type == COMPOSITE else None


def _num_layers(config: Any) -> int:  # noqa: ANN401 - of any model
    decoder = _decoder_of(config)
    if decoder is None:
        return int(config.num_hidden_layers)
    of_decoder = getattr(decoder, "decoder_layers", None) or decoder.num_hidden_layers
    return int(config.encoder.num_hidden_layers + of_decoder)


def _checked_vocab_size(folder: Path, config: Any, adapter: Path | None) -> int:  # noqa: ANN401 - of any such model
    """Return the size of the vocabulary, after checking the tokenizer against it.

    `adapter` is the file whose head replaces the model's.
    """
    decoder = _decoder_of(config)
    if decoder is None:
        size = int(config.vocab_size) if adapter is None else check_adapter(config, adapter)
        check_tokens(folder, config, size)
        return size
    check_ids(folder, read_tokenizer(folder).get_vocab().values(), decoder.vocab_size, "decoder.vocab_size")
    return int(decoder.vocab_size)


def _sample_rate(folder: Path) -> int:
    """Return the feature extractor's sample rate, after checking config.json against it."""
    rate = checked_rate(folder, load_feature_extractor(folder).sampling_rate)
    for name in ("sampling_rate", "sample_rate"):
        other = read_config(folder).get(name, rate)
        if other != rate:
            raise CheckpointError(
                f"{folder}: config.json says {name} {other!r}, the feature extractor {rate!r}: correct the wrong one"
            )
    return rate


def checked_rate(folder: Path, rate: object) -> int:
    """Return the sample rate of a feature extractor after a check.

    Raises:
        CheckpointError: It is no number of samples.
    """
    if type(rate) is not int or not 0 < rate <= MAX_SAMPLE_RATE:
        raise CheckpointError(
            f"{folder}: sampling_rate of the feature extractor is {rate!r}, expected samples per second such as 16000"
        )
    return rate


def stored(headers: Mapping[str, TensorHeader]) -> dict[str, Any]:
    """Return the fields of a summary on the stored weights: their number, bytes, and the dtype of most of them."""
    sizes: Counter[str] = Counter()
    for header in headers.values():
        sizes[str(header.dtype).removeprefix("torch.")] += header.num_elements
    [(dtype, _)] = sizes.most_common(1)
    num_bytes = sum(header.num_bytes for header in headers.values())
    return {"num_parameters": sizes.total(), "weight_bytes": num_bytes, "dtype": dtype}


@dataclass(frozen=True)
class LoadedCheckpoint:
    """A model with its feature extractor and tokenizer."""

    summary: CheckpointSummary
    model: Model
    feature_extractor: FeatureExtractor
    tokenizer: "TextOrCTCTokenizer | None"
    """None for a model without text output."""
    more_heads: tuple[Model, ...] = ()
    """Further heads over the model's encoder, if config.json names several architectures."""
    precision: Callable[[], contextlib.AbstractContextManager[object]] = contextlib.nullcontext
    """Returns the context in which the model computes, after its features."""

    @classmethod
    def of_model(
        cls,
        model: Model,
        feature_extractor: FeatureExtractor,
        tokenizer: "TextOrCTCTokenizer | None",
        *,
        path: Path,
        products: torch.dtype | None = None,
    ) -> "LoadedCheckpoint":
        """Return a model in memory, which is used as it is, by the files of a checkpoint that it is saved with.

        Args:
            model: the model, in evaluation mode while it labels.
            feature_extractor: extractor of the checkpoint.
            tokenizer: tokenizer of its head or decoder; None: it gives no text.
            path: name of the checkpoint in messages.
            products: dtype of products over weights in float32, as in a training; None: the dtype of the weights.
        """
        config: Any = model.config
        headers = {
            name: TensorHeader(name, weight.dtype, (*weight.shape,)) for name, weight in model.named_parameters()
        }
        vocab_size = None if tokenizer is None else int((_decoder_of(config) or config).vocab_size)
        rate = feature_extractor.sampling_rate
        summary = CheckpointSummary(
            path=path, **stored(headers), sample_rate=rate, vocab_size=vocab_size, **_described([model], rate)
        )
        if products in (None, model.dtype):
            return cls(summary, model, feature_extractor, tokenizer)
        precision = partial(torch.autocast, model.device.type, dtype=products)
        return cls(summary, model, feature_extractor, tokenizer, precision=precision)

    @property
    def sample_rate(self) -> int:
        """Samples per second that the model expects."""
        return self.feature_extractor.sampling_rate

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        """Data type of the weights."""
        return self.model.dtype

    @property
    def layer_weights(self) -> torch.Tensor | None:
        """Learned weights (K,) of the hidden states, of the first head that reads their sum; None without one."""
        weights = (layer_weights_of(model) for model in (self.model, *self.more_heads))
        return next((value for value in weights if value is not None), None)

    @property
    def text_tokenizer(self) -> CTCTokenizer:
        """The tokenizer of a CTC head; for a text decoder see `tokenizer`."""
        if self.tokenizer is None or not self.tokenizer.is_of_ctc:
            raise CheckpointError(f"{type(self.model).__name__} has no CTC head: use a checkpoint with one for text")
        return cast(CTCTokenizer, self.tokenizer)

    @cached_property
    def _switch(self) -> LanguageSwitch:
        model = next(head for head in (self.model, *self.more_heads) if isinstance(head, ForCTC))
        return LanguageSwitch(model, self.summary.path, self.summary.language)

    def use_language(self, language: str) -> None:
        """Switch adapter layers and CTC head to a language; not while the model runs.

        Raises:
            CheckpointError: the checkpoint lacks the file of the language, or it does not match the model.
            StoreError: the file cannot be fetched.
        """
        self._switch.use(language)

    @cached_property
    def _encoder_and_heads(self) -> tuple[Any, list[Any], list[Any]]:
        """The encoder, the heads with labels of its frames, and the heads that read a learned sum of its layers."""
        heads = [head for head in (self.model, *self.more_heads) if {*head.gives} - {Capability.TEXT_DECODER}]
        return self.model.speech_encoder, heads, [head for head in heads if layer_weights_of(head) is not None]

    def run(
        self,
        waves_BS: torch.Tensor,
        num_samples_B: torch.Tensor,
        *,
        hidden_states: bool,
        num_samples: Sequence[int] | None = None,
    ) -> ModelPass:
        """Run the encoder once, and all heads over its output, see `LabellingModel`.

        `num_samples` are on the host: with them, rows of one length need no mask on a GPU.
        """
        encoder, readers, weighing = self._encoder_and_heads
        features = self.feature_extractor.extract(waves_BS, num_samples_B)
        inputs = features[self.feature_extractor.model_input_names[0]]
        num_inputs = self.feature_extractor.num_inputs
        lengths = None if num_samples is None else [num_inputs(length) for length in num_samples]
        layout = Layout.of_counts(num_inputs(num_samples_B), inputs.shape[1], lengths)
        heads: dict[Capability, ModelOutput] = {}
        with self.precision():
            sums = {head: head.layer_sum() for head in weighing}
            encoded = encoder.encode(inputs, layout, output_hidden_states=hidden_states, states=[*sums.values()])
            for head in readers:
                heads |= dict.fromkeys(head.gives, head.read(Reading(encoded, inputs, layout, sums.get(head))))
        frames = hidden_frames = None
        if num_samples is not None:
            frames = [self.model.num_frames(length) for length in num_samples]
            hidden_frames = [*map(self.model.num_hidden_frames, num_samples)] if hidden_states else frames
        return ModelPass(
            heads=heads,
            num_frames_B=self.model.num_frames(num_samples_B),
            frames=frames,
            hidden_frames=hidden_frames,
            encoded=encoded,
            features={**features, "attention_mask": layout},
        )


def load_model(
    folder: str | Path,
    *,
    dtype: torch.dtype | str | None = None,
    device: torch.device | str | None = None,
) -> Model:
    """Load the model of a checkpoint folder or hub id in eval mode; the first of several heads.

    Arguments as for `Model.from_pretrained`.
    """
    return load_models(folder, dtype=dtype, device=device)[0]


def load_models(
    folder: str | Path,
    *,
    dtype: torch.dtype | str | None = None,
    device: torch.device | str | None = None,
) -> list[Model]:
    """Load the model of a checkpoint and further heads over its encoder, as `load_model` does."""
    folder = local_checkpoint(folder)
    classes = model_classes(folder)
    options: dict[str, Any] = {"return_dict": True, "output_attentions": False, "output_hidden_states": False}
    options |= {"dtype": dtype, "strict": len(classes) == 1}
    if len(classes) > 1:
        # Checks all weights against all classes; below, each class ignores the weights of other classes.
        check_checkpoint(folder, is_announced=False)
    model = classes[0].from_pretrained(folder, device=device, **options)
    return [model, *(with_encoder_of(model, cls.from_pretrained(folder, **options)) for cls in classes[1:])]


def load_checkpoint(
    folder: str | Path,
    *,
    dtype: torch.dtype | str | None = None,
    device: torch.device | str | None = None,
    is_announced: bool = True,
) -> LoadedCheckpoint:
    """Load the model of a checkpoint folder or hub id with its feature extractor and its tokenizer.

    Arguments as for `Model.from_pretrained` and `check_checkpoint`; without `is_announced`, `use_language` follows.
    """
    folder = local_checkpoint(folder)
    model, *more_heads = load_models(folder, dtype=dtype, device=device)
    summary = check_checkpoint(folder, is_announced=is_announced)
    has_text = TEXT & {*summary.gives} and not summary.contradiction
    loaded = LoadedCheckpoint(
        summary,
        model,
        load_feature_extractor(folder),
        read_tokenizer(folder) if has_text else None,
        tuple(more_heads),
    )
    if summary.adapter is not None and summary.language is not None:
        loaded.use_language(summary.language)
    return loaded
