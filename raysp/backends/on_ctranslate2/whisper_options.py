"""Options of a transcript by Whisper in CTranslate2."""

from collections.abc import Mapping

from raysp.backends.on_ctranslate2.converted import ready
from raysp.backends.on_ctranslate2.whisper_files import TASKS, WhisperFiles
from raysp.checkpoints.contents import unlisted
from raysp.errors import CheckpointError
from raysp.models.labelled_passes import CheckpointSummary
from raysp.words import suggestion

KINDS: Mapping[str, type] = {
    "beam_size": int,
    "patience": float,
    "length_penalty": float,
    "repetition_penalty": float,
    "no_repeat_ngram_size": int,
    "max_length": int,
    "suppress_blank": bool,
}
"""Options of `generate` that determine a text, with their types."""
BEAMS = "beam_size"


def decoding_options(options: Mapping[str, object], most_tokens: int) -> dict[str, object]:
    """Return the options of `generate` of CTranslate2: greedy search unless others are given."""
    return {BEAMS: 1, "max_length": most_tokens, **options}


def check_writing(
    checkpoint: CheckpointSummary, options: Mapping[str, object], *, language: str | None, task: str | None
) -> None:
    """Check the options of a transcript against a checkpoint.

    Raises:
        CheckpointError: an option is unknown or of another type, or the model has no such language or task.
    """
    for name, value in options.items():
        _check_option(checkpoint, name, value)
    files = WhisperFiles(ready(checkpoint.path))
    max_length = options.get("max_length", 1)
    if not 1 <= int(str(max_length)) <= files.most_tokens:
        raise CheckpointError(
            f"{checkpoint.path}: generate has max_length={max_length}, expected 1 to the {files.most_tokens} positions "
            "of the decoder"
        )
    if (language is not None or task is not None) and not files.is_multilingual:
        raise CheckpointError(
            f"{checkpoint.path}: language={language!r}, task={task!r}, and this Whisper is for one language; leave "
            "them out"
        )
    if task is not None and task not in TASKS:
        raise CheckpointError(f"{checkpoint.path}: task is {task!r}, expected one of {', '.join(TASKS)}")
    if language is not None:
        language_code(files, language)


def language_code(files: WhisperFiles, language: str) -> str:
    """Return the code of a language that is named by its code or token.

    Raises:
        CheckpointError: the model does not have it.
    """
    code = language.lower().strip("<|>")
    if code not in files.languages:
        raise CheckpointError(f"{files.folder}: {unlisted(language, sorted(files.languages))}")
    return code


def _check_option(checkpoint: CheckpointSummary, name: str, value: object) -> None:
    if name not in KINDS:
        raise CheckpointError(
            f"{checkpoint.path}: generate: unknown option {name!r} of CTranslate2{suggestion(name, KINDS)}; expected "
            f"one of {', '.join(KINDS)}"
        )
    kind = KINDS[name]
    is_number = type(value) in (int, float) if kind is float else type(value) is kind
    if not is_number or (kind is not bool and float(str(value)) < 0):
        raise CheckpointError(
            f"{checkpoint.path}: generate has {name}={value!r}, expected a {kind.__name__} of at least 0"
        )
