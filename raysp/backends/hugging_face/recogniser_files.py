"""Description of a recogniser of transformers that is prompted through its processor, read without weights."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from importlib import util
from pathlib import Path
from typing import Any, Self

import numpy as np
from torch import Tensor
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

from raysp.backends.hugging_face.describing import (
    PROBED_SECONDS,
    TENTHS,
    Kind,
    checked_size,
    kind_of,
    parts_of,
    read,
    refuse_noise,
    sample_rate_of,
    width,
)
from raysp.backends.hugging_face.loaded_weights import check_adapter_files
from raysp.backends.hugging_face.padded_batches import why_alone
from raysp.backends.hugging_face.partial_processors import load_processor
from raysp.backends.hugging_face.recogniser_families import FAMILIES, Family, TextRequest
from raysp.backends.hugging_face.recogniser_settings import DEPENDENT, FILE, settings_of
from raysp.capabilities import Capability
from raysp.errors import CheckpointError
from raysp.models.base.weights import read_headers
from raysp.models.labelled_passes import CheckpointSummary
from raysp.models.loading import main_dtype

USUAL_FRAMES = 50
"""Frames a second of most encoders, by which memory is estimated."""
AUDIO_TOKENS = ("audio_token", "audio_bos_token", "audio_eos_token")
"""Attributes of processors that are tokens of a recording."""
_of_processor = partial(
    read, advice="; expected tokenizer, chat template and processor_config.json as saved with these weights"
)


def is_recogniser(kind: Kind) -> bool:
    """Return whether a checkpoint is prompted through its processor."""
    return kind.head in (Capability.TEXT_DECODER, Capability.TRANSDUCER) and kind.model_type in FAMILIES


def processor_of(folder: Path, kind: Kind) -> Any:  # noqa: ANN401 - a class of transformers
    """Return the processor, which pads prompts on the left.

    Raises:
        CheckpointError: it needs a package that is not installed, cannot be read, is of another class than that of the
            model type, or draws random numbers.
    """
    family, expected = kind.family, PROCESSOR_MAPPING_NAMES.get(kind.model_type)
    if family.package and not util.find_spec(family.package.replace("-", "_")):
        raise CheckpointError(
            f"{folder}: its processor needs the package {family.package}, which is not installed; pip install "
            f"'raysp[{family.package}]'"
        )
    processor = _of_processor(folder, lambda: load_processor(folder, expected))
    name = type(processor).__name__
    if expected is not None and name != expected:
        raise CheckpointError(
            f"{folder}: the processor is a {name}, expected {expected} for model type {kind.model_type!r}; use the "
            "processor_config.json and tokenizer_config.json that were saved with these weights"
        )
    if not family.has_seeded_noise:
        refuse_noise(folder, _of_processor(folder, lambda: extractor_in(processor)))
    processor.tokenizer.padding_side = "left"
    return processor


def extractor_in(processor: Any) -> Any:  # noqa: ANN401
    """Return the feature extractor of a processor."""
    return getattr(processor, "feature_extractor", None) or processor.audio_processor


@dataclass(frozen=True)
class RecogniserFiles:
    """Files of a checkpoint besides its weights, as transformers reads them."""

    folder: Path
    kind: Kind
    settings: Mapping[str, Any]
    """Settings of generation_config.json that are set."""
    processor: Any

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read a folder.

        Raises:
            CheckpointError: transformers does not read it, or a setting is refused.
        """
        kind = kind_of(folder)
        if adapter := kind.family.adapter:
            check_adapter_files(folder, adapter)
        return cls(folder, kind, settings_of(folder, kind), processor_of(folder, kind))

    def describe(self) -> CheckpointSummary:
        """Check that the parts fit, and return the description of the checkpoint.

        Raises:
            CheckpointError: they do not.
        """
        folder, kind, settings, processor = self.folder, self.kind, self.settings, self.processor
        family = kind.family
        extractor = extractor_in(processor)
        headers, rate = read_headers(folder), sample_rate_of(folder, extractor)
        config, languages = kind.config, _languages(folder, family, processor, settings)
        probe = _Probe(folder, family, processor, rate)
        if "language" in family.takes and len(languages) > 1:
            other = languages[-1] if family.needs_language else None
            probe.check("language", TextRequest(language=languages[0]), TextRequest(language=other))
        padded = _padded_samples(probe, extractor, languages)
        _check_frames(folder, config, extractor, padded)
        is_transducer = kind.head is Capability.TRANSDUCER
        if is_transducer:
            _check_transducer(folder, config, extractor, processor, settings.get("decoder_start_token_id"))
        text = config.get_text_config(decoder=True)
        name = kind.model_class.__name__
        needs = (
            f"{folder}: {name} does not detect languages: use a checkpoint that does" if family.needs_language else ""
        )
        return CheckpointSummary(
            path=folder,
            model_type=kind.model_type,
            architecture=name,
            num_parameters=sum(header.num_elements for header in headers.values()),
            sample_rate=rate,
            vocab_size=text.vocab_size if is_transducer else _vocab_size(folder, text, processor),
            min_samples=rate // TENTHS,
            frame_stride=rate // 100,
            hidden_size=int(text.decoder_hidden_size if is_transducer else text.hidden_size),
            num_layers=sum(int(getattr(part, "num_hidden_layers", 0) or 0) for part in parts_of(config)),
            gives=(Capability.TEXT_DECODER,),
            dtype=main_dtype(headers),
            weight_bytes=sum(header.num_bytes for header in headers.values()),
            receptive_samples=rate // 100,
            activations_per_second=float(USUAL_FRAMES * max(map(width, parts_of(config)))),
            backend="transformers",
            padded_samples=padded,
            languages=languages,
            writes_times=is_transducer,
            detects=family.language_of is not None,
            contradiction=needs,
            takes=family.takes,
            alone=_why_alone(kind.model_type, settings, processor),
            max_samples=_max_samples(family, extractor, rate),
        )


def _vocab_size(folder: Path, text: Any, processor: Any) -> int:  # noqa: ANN401
    audio = getattr(processor, "audio_token_id", None)  # recordings replace it; Nemotron has no embedding for it
    return checked_size(folder, int(text.vocab_size), {*processor.tokenizer.get_vocab().values()} - {audio})


def special_ids(processor: Any) -> set[int]:  # noqa: ANN401
    """Return the ids of the tokens that are no text."""
    return {index for index, token in processor.tokenizer.added_tokens_decoder.items() if token.special}


def _check_transducer(folder: Path, config: Any, extractor: Any, processor: Any, first: int | None) -> None:  # noqa: ANN401
    """Raise CheckpointError if blank, tokens or features contradict each other.

    The tokenizer may have special tokens that the model does not write: the blank has the id of one of them.
    """
    size, blank, bins = config.vocab_size, config.blank_token_id, config.encoder_config.num_mel_bins
    written, ids = {*range(size)} - {blank}, {*processor.tokenizer.get_vocab().values()}
    is_missing = bool(written - ids or ids - {*range(size)} - special_ids(processor))
    contradictions = {
        f"blank_token_id is {blank} of {size} tokens, decoder_start_token_id is {first}": first != blank
        or blank >= size,
        f"the tokenizer has {len(ids)} tokens, the model {size} (vocab_size)": is_missing,
        f"the extractor has {extractor.feature_size} mel bins, the encoder {bins}": extractor.feature_size != bins,
    }
    if wrong := [words for words, is_wrong in contradictions.items() if is_wrong]:
        raise CheckpointError(f"{folder}: {'; '.join(wrong)}: use the files that were saved with these weights")


def _languages(folder: Path, family: Family, processor: Any, settings: Mapping[str, Any]) -> tuple[str, ...]:  # noqa: ANN401
    """Return the languages for which a checkpoint has tokens."""
    vocabulary = processor.tokenizer.get_vocab()
    if family.begins and family.begins not in vocabulary:
        raise CheckpointError(
            f"{folder}: the tokenizer has no token {family.begins!r}, by which texts begin: use the tokenizer that was "
            "saved with these weights"
        )
    languages = {*family.languages(processor)}
    if family.codes:
        languages &= {*(settings.get(family.codes) or ())}
    if family.needs_language and not languages:
        where = f" and {FILE} ({family.codes})" if family.codes else ""
        raise CheckpointError(
            f"{folder}: the tokenizer{where} has no token of any language, expected those that transcripts name: use "
            "the files that were saved with these weights"
        )
    return tuple(sorted(languages))


class _Probe:
    """Inputs of noise, by which a processor is tried."""

    def __init__(self, folder: Path, family: Family, processor: Any, rate: int) -> None:  # noqa: ANN401
        self.folder, self.family, self.processor, self.rate = folder, family, processor, rate
        noise = np.random.default_rng(0).standard_normal(PROBED_SECONDS[-1] * rate)
        self.noise = noise.astype(np.float32) * 0.1

    def inputs(self, request: TextRequest, seconds: int = PROBED_SECONDS[0]) -> Mapping[str, Any]:
        """Return the inputs of a recording."""
        wave = self.noise[: seconds * self.rate]
        return _of_processor(self.folder, lambda: dict(self.family.inputs(self.processor, wave, request)))

    def check(self, option: str, *requests: TextRequest) -> None:
        """Check that the inputs of two requests differ, as their values of an option do."""
        before, after = map(self.inputs, requests)
        if all(np.array_equal(value, after.get(name, ())) for name, value in before.items()):
            raise CheckpointError(
                f"{self.folder}: the prompt does not change with {option}, expected a chat template that has it: use "
                "the chat template that was saved with these weights"
            )


def checked_prompt(folder: Path, kind: Kind, request: TextRequest) -> int:
    """Check the words of a request, and return the number of tokens of its prompt without those of the recording.

    Raises:
        CheckpointError: they have a special token, or the processor makes no prompt of them.
    """
    family, processor = kind.family, processor_of(folder, kind)
    tokenizer = processor.tokenizer
    special = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    special |= {*tokenizer.all_special_tokens, family.begins, *(getattr(processor, name, "") for name in AUDIO_TOKENS)}
    for option, text in [("prompt", request.prompt or ""), *(("keywords", word) for word in request.keywords)]:
        if inside := sorted(token for token in special - {"", None} if token in text):
            raise CheckpointError(
                f"{folder}: {option} has {inside[0]!r}, a special token of the tokenizer, expected words: leave it out "
                f"of {text!r}"
            )
    probe = _Probe(folder, family, processor, sample_rate_of(folder, extractor_in(processor)))
    without = {"prompt": replace(request, prompt=None), "keywords": replace(request, keywords=())}
    inputs = probe.inputs(request)
    for option, other in without.items():
        if getattr(request, option):
            probe.check(option, other, request)
    ids = inputs.get("input_ids", inputs.get("decoder_input_ids"))
    audio = getattr(processor, "audio_token_id", None)
    return 0 if ids is None else int(np.count_nonzero(ids != audio))


def _padded_samples(probe: _Probe, extractor: Any, languages: tuple[str, ...]) -> int:  # noqa: ANN401
    """Return the length to which the processor pads shorter recordings; 0 if it does not."""
    request = TextRequest(language=probe.family.probed_language(languages))
    inputs = [probe.inputs(request, seconds) for seconds in PROBED_SECONDS]
    tensors = [[value for value in of_wave.values() if isinstance(value, Tensor)] for of_wave in inputs]
    shapes = [max((value.shape for value in of_wave if value.is_floating_point()), key=np.prod) for of_wave in tensors]
    return int(getattr(extractor, "n_samples", 0)) if shapes[0] == shapes[1] else 0


def _check_frames(folder: Path, config: Any, extractor: Any, padded: int) -> None:  # noqa: ANN401
    """Raise CheckpointError if the extractor pads recordings to another length than the encoder takes."""
    positions = getattr(getattr(config, "audio_config", None), "max_source_positions", None)
    frames = getattr(extractor, "nb_max_frames", None)
    if padded and positions and frames and frames != 2 * positions:
        raise CheckpointError(
            f"{folder}: the feature extractor pads to {frames} frames (chunk_length {extractor.chunk_length}), "
            f"expected {2 * positions} (config.json, max_source_positions): use the processor_config.json that was "
            "saved with these weights"
        )


def _max_samples(family: Family, extractor: Any, rate: int) -> int | None:  # noqa: ANN401
    """Return the samples of the longest recording that model and extractor take whole; None: any."""
    if family.max_seconds is None:
        return None
    seconds = min(family.max_seconds, getattr(extractor, "max_audio_clip_s", None) or family.max_seconds)
    return min(round(seconds * rate), getattr(extractor, "n_samples", None) or round(seconds * rate))


def _why_alone(model_type: str, settings: Mapping[str, Any], processor: Any) -> str:  # noqa: ANN401
    """Return the reason why each window is a pass of its own; empty if windows share passes."""
    for name in DEPENDENT:
        if name in settings:
            return f"{FILE} has {name}, which reads the padding"
    if processor.tokenizer.pad_token_id is None:
        return "the tokenizer has no pad_token"
    return why_alone(model_type)
