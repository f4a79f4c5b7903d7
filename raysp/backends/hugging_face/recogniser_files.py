"""Description of a recogniser of transformers that is prompted through its processor, read without weights."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

from raysp.backends.hugging_face.describing import (
    PROBED_SECONDS,
    TENTHS,
    Kind,
    check_extractor,
    noise,
    parts_of,
    read,
    width,
)
from raysp.backends.hugging_face.loaded_weights import check_adapter_files
from raysp.backends.hugging_face.padded_batches import why_alone
from raysp.backends.hugging_face.partial_processors import load_processor
from raysp.backends.hugging_face.recogniser_families import FAMILIES, TextRequest
from raysp.backends.hugging_face.recogniser_settings import DEPENDENT, FILE, settings_of
from raysp.capabilities import Capability
from raysp.errors import CheckpointError
from raysp.models.base.weights import read_headers
from raysp.models.labelled_passes import CheckpointSummary
from raysp.models.loading import stored
from raysp.models.tokenizers.head_tokens import check_ids

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


@dataclass(frozen=True)
class RecogniserFiles:
    """Files of a checkpoint besides its weights, each read by transformers when it is used.

    Raises:
        CheckpointError: by the properties, where transformers does not read a file, or it is refused.
    """

    folder: Path
    kind: Kind

    @cached_property
    def settings(self) -> Mapping[str, Any]:
        """Settings of generation_config.json that are set."""
        return settings_of(self.folder, self.kind)

    @cached_property
    def processor(self) -> Any:  # noqa: ANN401 - a class of transformers
        """Processor, which pads prompts on the left; of the class of the model type."""
        folder, model_type, package = self.folder, self.kind.model_type, self.kind.family.package
        expected = PROCESSOR_MAPPING_NAMES.get(model_type)
        if package and not util.find_spec(package.replace("-", "_")):
            raise CheckpointError(
                f"{folder}: its processor needs the package {package}, which is not installed; pip install "
                f"'raysp[{package}]'"
            )
        processor = _of_processor(folder, lambda: load_processor(folder, expected))
        name = type(processor).__name__
        if expected is not None and name != expected:
            raise CheckpointError(
                f"{folder}: the processor is a {name}, expected {expected} for model type {model_type!r}; use the "
                "processor_config.json and tokenizer_config.json that were saved with these weights"
            )
        processor.tokenizer.padding_side = "left"
        return processor

    @cached_property
    def extractor(self) -> Any:  # noqa: ANN401 - a class of transformers
        """Feature extractor of the processor, which has a sample rate and draws no random numbers."""
        own = self.processor
        extractor = _of_processor(self.folder, lambda: getattr(own, "feature_extractor", None) or own.audio_processor)
        check_extractor(self.folder, extractor, may_add_noise=self.kind.family.has_seeded_noise)
        return extractor

    @property
    def ids(self) -> set[int]:
        """Ids of the tokens of the tokenizer."""
        return {*self.processor.tokenizer.get_vocab().values()}

    @property
    def special_ids(self) -> set[int]:
        """Ids of the tokens that are no text."""
        return {index for index, token in self.processor.tokenizer.added_tokens_decoder.items() if token.special}

    def describe(self) -> CheckpointSummary:
        """Check that the parts fit, and return the description of the checkpoint.

        Raises:
            CheckpointError: they do not.
        """
        folder, kind, family, config = self.folder, self.kind, self.kind.family, self.kind.config
        if family.adapter:
            check_adapter_files(folder, family.adapter)
        headers, alone = read_headers(folder), self._why_alone()
        rate, languages = self.extractor.sampling_rate, self._languages()
        if "language" in family.takes and len(languages) > 1:
            other = languages[-1] if family.needs_language else None
            self._check_option("language", TextRequest(language=languages[0]), TextRequest(language=other))
        padded, text = self._padded_samples(languages), config.get_text_config(decoder=True)
        if is_transducer := kind.head is Capability.TRANSDUCER:
            self._check_transducer()
        else:  # recordings replace their token; Nemotron has no embedding for it
            ids = self.ids - {getattr(self.processor, "audio_token_id", None)}
            check_ids(folder, ids, text.vocab_size, "vocab_size")
        name = kind.model_class.__name__
        needs = (
            f"{folder}: {name} does not detect languages: use a checkpoint that does" if family.needs_language else ""
        )
        return CheckpointSummary(
            path=folder,
            model_type=kind.model_type,
            architecture=name,
            **stored(headers),
            sample_rate=rate,
            vocab_size=int(text.vocab_size),
            min_samples=rate // TENTHS,
            frame_stride=rate // 100,
            hidden_size=int(text.decoder_hidden_size if is_transducer else text.hidden_size),
            num_layers=sum(int(getattr(part, "num_hidden_layers", 0) or 0) for part in parts_of(config)),
            gives=(Capability.TEXT_DECODER,),
            receptive_samples=rate // 100,
            activations_per_second=float(USUAL_FRAMES * max(map(width, parts_of(config)))),
            backend="transformers",
            padded_samples=padded,
            languages=languages,
            writes_times=is_transducer,
            detects=family.language_of is not None,
            contradiction=needs,
            takes=family.takes,
            alone=alone,
            max_samples=self._max_samples(),
        )

    def _check_transducer(self) -> None:
        """Raise CheckpointError if blank, tokens or features contradict each other.

        The tokenizer may have special tokens that the model does not write: the blank has the id of one of them.
        """
        config, extractor, first = self.kind.config, self.extractor, self.settings.get("decoder_start_token_id")
        size, blank, bins, ids = config.vocab_size, config.blank_token_id, config.encoder_config.num_mel_bins, self.ids
        is_missing = bool({*range(size)} - {blank} - ids or ids - {*range(size)} - self.special_ids)
        contradictions = {
            f"blank_token_id is {blank} of {size} tokens, decoder_start_token_id is {first}": first != blank
            or blank >= size,
            f"the tokenizer has {len(ids)} tokens, the model {size} (vocab_size)": is_missing,
            f"the extractor has {extractor.feature_size} mel bins, the encoder {bins}": extractor.feature_size != bins,
        }
        if wrong := [words for words, is_wrong in contradictions.items() if is_wrong]:
            raise CheckpointError(
                f"{self.folder}: {'; '.join(wrong)}: use the files that were saved with these weights"
            )

    def _languages(self) -> tuple[str, ...]:
        """Return the languages for which the checkpoint has tokens."""
        family, processor = self.kind.family, self.processor
        if family.begins and family.begins not in processor.tokenizer.get_vocab():
            raise CheckpointError(
                f"{self.folder}: the tokenizer has no token {family.begins!r}, by which texts begin: use the tokenizer "
                "that was saved with these weights"
            )
        languages = {*family.languages(processor)}
        if family.codes:
            languages &= {*(self.settings.get(family.codes) or ())}
        if family.needs_language and not languages:
            where = f" and {FILE} ({family.codes})" if family.codes else ""
            raise CheckpointError(
                f"{self.folder}: the tokenizer{where} has no language tokens, which this family needs: use the "
                "files that were saved with these weights"
            )
        return tuple(sorted(languages))

    def _inputs(self, request: TextRequest, seconds: int = PROBED_SECONDS[0]) -> Mapping[str, Any]:
        """Return the inputs of noise, by which the processor is tried."""
        wave = 0.1 * noise(self.extractor.sampling_rate, seconds)
        return _of_processor(self.folder, lambda: dict(self.kind.family.inputs(self.processor, wave, request)))

    def _check_option(self, option: str, *requests: TextRequest) -> None:
        """Check that the inputs of two requests differ, as their values of an option do."""
        before, after = map(self._inputs, requests)
        if all(np.array_equal(value, after.get(name, ())) for name, value in before.items()):
            raise CheckpointError(
                f"{self.folder}: the prompt does not change with {option}, expected a chat template that has it: use "
                "the chat template that was saved with these weights"
            )

    def check_prompt(self, request: TextRequest) -> int:
        """Check the words of a request, and return the number of tokens of its prompt without those of the recording.

        Raises:
            CheckpointError: they have a special token, or the processor makes no prompt of them.
        """
        processor, tokenizer = self.processor, self.processor.tokenizer
        special = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
        special |= {*tokenizer.all_special_tokens, self.kind.family.begins}
        special |= {getattr(processor, name, "") for name in AUDIO_TOKENS}
        for option, text in [("prompt", request.prompt or ""), *(("keywords", word) for word in request.keywords)]:
            if inside := sorted(token for token in special - {"", None} if token in text):
                raise CheckpointError(
                    f"{self.folder}: {option} has {inside[0]!r}, a special token of the tokenizer, expected words: "
                    f"leave it out of {text!r}"
                )
        inputs = self._inputs(request)
        without = {"prompt": replace(request, prompt=None), "keywords": replace(request, keywords=())}
        for option, other in without.items():
            if getattr(request, option):
                self._check_option(option, other, request)
        ids = inputs.get("input_ids", inputs.get("decoder_input_ids"))
        return 0 if ids is None else int(np.count_nonzero(ids != getattr(processor, "audio_token_id", None)))

    def _padded_samples(self, languages: tuple[str, ...]) -> int:
        """Return the length to which the processor pads shorter recordings; 0 if it does not.

        Raises:
            CheckpointError: the encoder takes another length.
        """
        request = TextRequest(language=self.kind.family.probed_language(languages))
        inputs = [self._inputs(request, seconds).values() for seconds in PROBED_SECONDS]
        tensors = [[value for value in of_wave if isinstance(value, Tensor)] for of_wave in inputs]
        largest = {max((value.shape for value in row if value.is_floating_point()), key=np.prod) for row in tensors}
        if len(largest) > 1:
            return 0
        extractor, audio = self.extractor, getattr(self.kind.config, "audio_config", None)
        positions, frames = getattr(audio, "max_source_positions", None), getattr(extractor, "nb_max_frames", None)
        if positions and frames and frames != 2 * positions:
            raise CheckpointError(
                f"{self.folder}: the feature extractor pads to {frames} frames (chunk_length "
                f"{extractor.chunk_length}), expected {2 * positions} (config.json, max_source_positions): use the "
                "processor_config.json that was saved with these weights"
            )
        return int(getattr(extractor, "n_samples", 0))

    def _max_samples(self) -> int | None:
        """Return the samples of the longest recording that model and extractor take whole; None: any."""
        extractor, most = self.extractor, self.kind.family.max_seconds
        if most is None:
            return None
        samples: int = round(min(most, getattr(extractor, "max_audio_clip_s", None) or most) * extractor.sampling_rate)
        return min(samples, getattr(extractor, "n_samples", None) or samples)

    def _why_alone(self) -> str:
        """Return the reason why each window is a pass of its own; empty if windows share passes."""
        for name in DEPENDENT:
            if name in self.settings:
                return f"{FILE} has {name}, which reads the padding"
        if self.processor.tokenizer.pad_token_id is None:
            return "the tokenizer has no pad_token"
        return why_alone(self.kind.model_type)
