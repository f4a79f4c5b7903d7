"""A Whisper of Hugging Face in CTranslate2's format: converted once by the package's own converter, and kept."""

from pathlib import Path

from raysp.backends import hf_installed
from raysp.backends.finding import CTRANSLATE2, package_version
from raysp.backends.on_ctranslate2.whisper_files import MODEL, TOKENIZER
from raysp.checkpoints.fetching import cache_folder, digest_files, kept, new_copy
from raysp.errors import CheckpointError
from raysp.models.base.configuration import checkpoint_files, read_json


def ready(folder: Path) -> Path:
    """Return a folder in CTranslate2's format: the folder itself, or a conversion of it in the user's cache.

    Raises:
        CheckpointError: it is neither in that format nor a Whisper of Hugging Face, or transformers, which reads the
            latter, is not installed.
        StoreError: there is no space for the conversion.
    """
    config = folder / "config.json"
    is_theirs = config.is_file() and read_json(config).get("model_type") == "whisper"
    if (folder / MODEL).is_file() or not is_theirs:
        return folder
    name = digest_files(folder, checkpoint_files(folder))
    place = cache_folder() / "ctranslate2" / f"{name}-{package_version(CTRANSLATE2).replace(' ', '-')}"
    with kept(place, "a converted model") as is_missing:
        if is_missing:
            _require_transformers(folder)
            with new_copy(place) as part:
                _convert(folder, part)
    return place


def _require_transformers(folder: Path) -> None:
    if not hf_installed.version():
        raise CheckpointError(
            f"{folder}: it is in Hugging Face's format, and transformers, which reads it for the conversion to "
            f"CTranslate2's, is not installed: {hf_installed.COMMAND}, or give a folder with {MODEL}"
        )


def _convert(source: Path, target: Path) -> None:
    from ctranslate2.converters import TransformersConverter

    from raysp.backends.hugging_face.describing import read

    def convert() -> None:
        TransformersConverter(str(source)).convert(str(target), force=True)
        hf_installed.write_tokenizer(source, target / TOKENIZER)

    read(source, convert, package_version(CTRANSLATE2), advice=", and so not convert it")
