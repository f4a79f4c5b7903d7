"""Where a checkpoint's files are: a folder, or the cached snapshot of a Hugging Face hub id.

Only files that raysp reads are fetched. HF_HUB_OFFLINE, HF_HOME and HF_TOKEN act as everywhere with huggingface_hub.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from raysp.errors import CheckpointError

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")  # "owner/name", or a bare old name

CONFIG_FILES = ("config.json",)
PROCESSOR_FILES = (
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "tokenizer.json",
)
WEIGHT_FILES = ("model.safetensors", "model.safetensors.index.json", "model-*-of-*.safetensors")
PICKLE_FILES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "pytorch_model-*-of-*.bin")
MODEL_FILES = (*CONFIG_FILES, "generation_config.json", *WEIGHT_FILES)


def is_hub_id(name: str | Path) -> bool:
    """Tell whether a name can only be a hub id: a string that looks like one and is no path here."""
    return isinstance(name, str) and HUB_ID.fullmatch(name) is not None and not Path(name).exists()


def local_folder(name: str | Path, files: Sequence[str], *, revision: str | None = None) -> Path:
    """Return the folder of a checkpoint, fetched first where its name is a hub id.

    Args:
        name: A folder, or a hub id such as "facebook/wav2vec2-base-960h".
        files: Names or patterns of what is needed.
        revision: Branch, tag or commit of a hub id; None is its main branch.

    Raises:
        CheckpointError: No such folder, or the hub does not give the files.
    """
    if not is_hub_id(name):
        return Path(name)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return Path(snapshot_download(str(name), revision=revision, allow_patterns=list(files)))
    except (HfHubHTTPError, OSError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise CheckpointError(
            f"{name!r}: no such folder, and the Hugging Face hub does not give it ({type(error).__name__}: {reason}): "
            "correct the name, or download the checkpoint and give its folder"
        ) from error


def model_folder(name: str | Path, *, revision: str | None = None, allow_pickle: bool = False) -> Path:
    """Return the folder with a model's weights; pickles of a hub id are fetched only where there is nothing better."""
    folder = local_folder(name, MODEL_FILES, revision=revision)
    if allow_pickle and is_hub_id(name) and not any(folder.glob("model*.safetensors")):
        return local_folder(name, (*CONFIG_FILES, *PICKLE_FILES), revision=revision)
    return folder
