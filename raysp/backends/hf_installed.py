"""The installed transformers: its version and its model types."""

from importlib import metadata, util
from pathlib import Path

from raysp.models.base.configuration import read_json

COMMAND = "pip install 'raysp[transformers]'"
WRITERS = ("moonshine", "speech_to_text", "whisper")
"""Model types with a text decoder for which texts were compared with those of transformers."""
OF_FEATURES = ("granite_speech5_ctc", "lasr_ctc", "omniasr_ctc")
"""Model types with a CTC head whose frames were found by a probe."""
ENCODERS = ("audio-spectrogram-transformer", "data2vec-audio", "sew", "unispeech-sat", "wav2vec2-conformer", "wavlm")
OF_SPEECH = frozenset({*WRITERS, *OF_FEATURES, *ENCODERS})
"""Model types besides recognisers that this backend runs and raysp does not read, for messages without transformers."""


def version(library: str = "transformers") -> str:
    """Return the version of a library; empty if it is not installed."""
    if util.find_spec(library) is None:
        return ""
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:  # a folder of that name in the working directory
        return ""


def knows(model_type: str) -> bool:
    """Return whether this backend runs a model type, or refuses it with a reason of its own."""
    from raysp.backends.hugging_face.recogniser_families import FAMILIES, REFUSED

    return model_type in {*OF_SPEECH, *FAMILIES, *REFUSED}


def would_read(folder: Path) -> bool:
    """Return whether transformers, which is not installed, reads the model type of a folder."""
    from raysp.backends.hugging_face.recogniser_families import FAMILIES

    return read_json(folder / "config.json").get("model_type") in {*OF_SPEECH, *FAMILIES}


def reads(model_type: str) -> bool:
    """Return whether transformers has models of a type."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    return model_type in CONFIG_MAPPING_NAMES


def write_tokenizer(folder: Path, file: Path) -> None:
    """Write the tokenizer of a folder as a file of the tokenizers library."""
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    tokenizer.backend_tokenizer.save(str(file))
