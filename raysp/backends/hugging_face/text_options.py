"""Options of the texts of transformers: those of generation_config.json and of a transcript, checked without weights.

Recognisers are searched greedily. Settings that would change their search are refused by name, also those of later
versions of transformers. Whisper, Moonshine and Speech2Text take all options of `generate` but sampling.
"""

import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from raysp.backends.hugging_face.decoded_texts import FIXED, language_code
from raysp.backends.hugging_face.describing import WHISPER, Kind, kind_of
from raysp.backends.hugging_face.recogniser_families import TRANSLATE, TextRequest
from raysp.backends.hugging_face.recogniser_files import RecogniserFiles, is_recogniser
from raysp.backends.hugging_face.recogniser_settings import CACHE, generation_config_of
from raysp.capabilities import Capability
from raysp.checkpoints.contents import check_spoken, unlisted
from raysp.errors import CheckpointError
from raysp.models.decoder.generation_config import GenerationConfig
from raysp.models.labelled_passes import CheckpointSummary

MAX_NEW_TOKENS = 512
"""Tokens after which the text of a window is cut, where the checkpoint does not say: 17 for each second of 30."""
POSITIONS = ("max_text_positions", "max_target_positions", "max_position_embeddings")
"""Names of the number of positions of a decoder in configurations."""
PROMPT_TOKENS = 16
"""Room for the prompt of a recogniser, where the prompt is not measured."""
DECODER_PROMPT_TOKENS = 4
"""Most tokens that a text of Whisper begins with: start, language, task, and the one for no times."""
TAKEN = ("eos_token_id", "max_new_tokens", "min_new_tokens", "suppress_tokens")
"""Options of `generate` for which a text does not depend on the length of the prompt, and so not on its padding."""
REQUIRED_TOKENS = ("eos_token_id", "pad_token_id", "decoder_start_token_id")
"""Settings of generation_config.json whose tokens must be in the vocabulary."""


def check_writing(
    checkpoint: CheckpointSummary,
    options: Mapping[str, object],
    *,
    language: str | None,
    task: str | None,
    **words: Any,  # noqa: ANN401 - prompt and keywords
) -> None:
    """Check the options of a transcript against the files of a checkpoint.

    Raises:
        CheckpointError: an option is unknown, or the model does not take it or its value.
    """
    kind = kind_of(checkpoint.path)
    try:
        GenerationConfig.from_dict(options)
    except ValueError as error:
        raise CheckpointError(f"{checkpoint.path}: generate: {error}") from None
    if not is_recogniser(kind):
        _check_decoder(checkpoint, kind, options, language=language, task=task)
        return
    name = checkpoint.architecture
    ends_with_recording = kind.head is Capability.TRANSDUCER or kind.family.is_stream
    taken = () if ends_with_recording else TAKEN
    if refused := sorted({*options} - {*taken}):
        raise CheckpointError(
            f"{checkpoint.path}: generate has {', '.join(refused)}, expected {', '.join(taken) or 'no option'}: {name} "
            "is searched greedily, and a text must not depend on its batch"
        )
    for option, value in {"language": language, "task": task}.items():
        if value is not None and option not in checkpoint.takes:
            takes = f"takes {', '.join(checkpoint.takes)}" if checkpoint.takes else "takes no option"
            raise CheckpointError(f"{checkpoint.path}: {option}={value!r} given; {name} {takes}: leave it out")
    if task not in (None, TRANSLATE):
        raise CheckpointError(f"{checkpoint.path}: task={task!r}, expected {TRANSLATE!r}, or none")
    if task == TRANSLATE and "en" not in checkpoint.languages:
        raise CheckpointError(
            f"{checkpoint.path}: task={task!r} writes English, and the tokenizer has no token for 'en': leave task out"
        )
    if language is not None and checkpoint.languages and language not in checkpoint.languages:
        raise CheckpointError(f"{checkpoint.path}: {unlisted(language, checkpoint.languages)}")
    if ends_with_recording:
        return
    files, num_prompt = RecogniserFiles(checkpoint.path, kind), PROMPT_TOKENS
    if words:
        spoken = language or kind.family.probed_language(checkpoint.languages)
        num_prompt = max(num_prompt, files.check_prompt(TextRequest(language=spoken, task=task, **words)))
    _check_tokens(checkpoint, files.settings, options)
    _check_lengths(checkpoint.path, kind, files.settings, options, num_prompt)


def _check_decoder(
    checkpoint: CheckpointSummary, kind: Kind, options: Mapping[str, object], *, language: str | None, task: str | None
) -> None:
    """Raise CheckpointError if Whisper or a model like it does not take an option of a transcript."""
    folder = checkpoint.path
    if options.get("do_sample"):
        raise CheckpointError(
            f"{folder}: generate has do_sample, for which transformers draws the samples of a batch from one "
            "generator, so that texts would depend on it; leave it out"
        )
    _check_lengths(folder, kind, {}, options, DECODER_PROMPT_TOKENS)
    if language is None and task is None:
        return
    if kind.model_type != WHISPER:
        raise CheckpointError(
            f"{folder}: language and task are for Whisper; for {checkpoint.architecture} use "
            "generate={'forced_bos_token_id': ...}"
        )
    config = generation_config_of(folder, kind)
    languages = sorted(name.strip("<|>") for name in getattr(config, "lang_to_id", None) or ())
    tasks = sorted(getattr(config, "task_to_id", None) or ())
    code = None if language is None else language_code(language)
    check_spoken(folder, code, task, languages if getattr(config, "is_multilingual", False) else [], tasks)


def search_options(kind: Kind, settings: Mapping[str, Any], options: Mapping[str, object]) -> dict[str, Any]:
    """Return the options of `generate` of a greedy search."""
    ends = {"eos_token_id": settings["eos_token_id"]} if kind.is_part and "eos_token_id" in settings else {}
    fixed = {"num_beams": 1, **ends, **options, **FIXED}
    if kind.family.is_stream:
        return {CACHE: "dynamic", **fixed}
    if "max_new_tokens" in fixed or (settings.get("max_length") and settings.get("max_new_tokens") is None):
        return fixed
    return {"max_new_tokens": settings.get("max_new_tokens") or _most_tokens(kind), **fixed}


def _origin(name: str, options: Mapping[str, object]) -> str:
    return "generate" if name in options else "generation_config.json"


def _check_tokens(checkpoint: CheckpointSummary, settings: Mapping[str, Any], options: Mapping[str, object]) -> None:
    """Raise CheckpointError if tokens are not in the vocabulary, or no token ends a text."""
    merged, size = {**settings, **options}, checkpoint.vocab_size or 0
    for name in sorted({*REQUIRED_TOKENS, *({"suppress_tokens"} & {*options})} & {*merged}):
        value: Any = merged[name]
        ids = [*value] if isinstance(value, list | tuple) else [value]
        wrong = [token for token in ids if type(token) is not int or not 0 <= token < size]
        if wrong or not ids:
            raise CheckpointError(
                f"{checkpoint.path}: {_origin(name, options)} has {name}={reprlib.repr(ids)}, expected token ids from "
                f"0 to {size - 1}"
            )
    if merged.get("eos_token_id") is None:
        raise CheckpointError(
            f"{checkpoint.path}: generation_config.json has no eos_token_id, so that no text would end: pass "
            "generate={'eos_token_id': ...}"
        )


def _check_lengths(
    folder: Path, kind: Kind, settings: Mapping[str, Any], options: Mapping[str, object], num_prompt: int
) -> None:
    """Raise CheckpointError if the length of a text is no length, or the decoder has fewer positions."""
    merged: dict[str, Any] = {**settings, **options}
    for name, least in {"max_new_tokens": 1, "max_length": 1, "min_new_tokens": 0}.items():
        value = merged.get(name)
        if value is not None and (type(value) is not int or value < least):
            raise CheckpointError(
                f"{folder}: {_origin(name, options)} has {name}={value!r}, expected an integer from {least} on"
            )
    most, max_length = merged.get("max_new_tokens"), merged.get("max_length")
    if most is None and max_length is not None:
        if not kind.config.is_encoder_decoder:
            raise CheckpointError(
                f"{folder}: generation_config.json has max_length={max_length}, which counts the tokens of the "
                "recording: pass generate={'max_new_tokens': ...}, which does not"
            )
        needed, name, most = max_length, "max_length", max_length - 1
    else:
        most = most or _most_tokens(kind)
        needed, name = most + num_prompt, "max_new_tokens"
    if needed > (size := _positions(kind)):
        raise CheckpointError(
            f"{folder}: {_origin(name, options)} asks for {needed} tokens including the prompt ({name}), but the "
            f"decoder has {size} positions: pass generate={{'max_new_tokens': {max(1, size - num_prompt)}}} or less"
            f"{', or a shorter prompt' if num_prompt > PROMPT_TOKENS else ''}"
        )
    if (least := merged.get("min_new_tokens") or 0) > most:
        raise CheckpointError(
            f"{folder}: {_origin('min_new_tokens', options)} has min_new_tokens={least}, expected at most the {most} "
            "tokens after which a text is cut (max_new_tokens)"
        )


def _positions(kind: Kind) -> int:
    """Return the number of positions of the decoder; enough for any text where it names none."""
    text = kind.config.get_text_config(decoder=True)
    named = (size for name in POSITIONS if (size := getattr(text, name, None)))
    return int(next(named, MAX_NEW_TOKENS + PROMPT_TOKENS))


def _most_tokens(kind: Kind) -> int:
    """Return the tokens after which a text is cut where the checkpoint does not say: those that have positions."""
    return max(1, min(MAX_NEW_TOKENS, _positions(kind) - PROMPT_TOKENS))
