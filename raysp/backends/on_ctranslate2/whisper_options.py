"""Options of a transcript by Whisper in CTranslate2."""

from collections.abc import Mapping

from raysp.backends.on_ctranslate2.converted import ready
from raysp.backends.on_ctranslate2.whisper_files import TASKS, WhisperFiles
from raysp.checkpoints.contents import check_spoken
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
    code = None if language is None else language_code(language)
    check_spoken(checkpoint.path, code, task, sorted(files.languages), TASKS)


def language_code(language: str) -> str:
    """Return the code of a language that is named by its code or token."""
    return language.lower().strip("<|>")


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
