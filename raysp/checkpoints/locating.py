"""Location of a checkpoint: a local folder, a folder on object storage, or a hub id."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from raysp.checkpoints import hub
from raysp.checkpoints.fetching import EVERY, fetch
from raysp.errors import CheckpointError
from raysp.storage.store import normalise, scheme_of

KEPT_FILES = (
    *("*.json", "*.txt", "*.model", "*.md", "*.jinja", "*.safetensors", "*.tiktoken"),
    *("LICENSE*", "LICENCE*", "NOTICE*"),
)
"""Patterns of the files of a checkpoint besides its pickles: configuration, tokenizer, adapters, card, licence."""
LANGUAGE_MODEL = "language_model"
"""The folder of a language model beside the weights; all its files are kept."""
SMALL_FILES = (*(one for one in KEPT_FILES if one != "*.safetensors"), f"{LANGUAGE_MODEL}/*")
ADAPTERS = "adapter.*.safetensors"
PICKLED_ADAPTERS = "adapter.*.bin"


def locate(
    checkpoint: str,
    storage_options: Mapping[str, object] | None = None,
    files: Sequence[str] = hub.CHECKPOINT_FILES,
    languages: Sequence[str] | None = None,
) -> Path:
    """Return the local folder of a checkpoint, fetched once from object storage or from the hub.

    `files` are names and patterns of the files that are fetched from the hub. From both only the adapters of
    `languages` are fetched (see `hub.local_checkpoint` and `fetch`).

    Raises:
        CheckpointError: the folder does not exist or holds no checkpoint.
        StoreError: it cannot be read.
    """
    if scheme_of(checkpoint):
        return fetch(checkpoint, storage_options, languages=languages, other=set(files) & hub.OTHER_WEIGHTS)
    if (folder := Path(normalise(checkpoint))).is_dir():
        hub.check_weights(checkpoint, folder, files)
        return folder
    if _names_hub(checkpoint):
        return hub.local_checkpoint(checkpoint, files, languages)
    found = "a file" if folder.is_file() else "no such folder"
    raise CheckpointError(
        f"checkpoint {checkpoint!r}: {found}; expected a Hugging Face model folder (config.json, model.safetensors), "
        "on a local disk or on object storage, or a hub id ('owner/name')"
    )


def pinned(checkpoint: str) -> str:
    """Return a hub id with its current commit; another checkpoint is returned unchanged.

    Raises:
        CheckpointError: the hub has no such id, or cannot be reached.
    """
    return hub.pinned(checkpoint) if _names_hub(checkpoint) else checkpoint


def hub_id(checkpoint: str) -> str | None:
    """Return a hub id without its revision; None for a folder or a URL."""
    return checkpoint.partition("@")[0] if _names_hub(checkpoint) else None


def _names_hub(checkpoint: str) -> bool:
    """Return whether a checkpoint is a hub id with an owner; a bare name counts as a missing folder."""
    return "/" in checkpoint and not scheme_of(checkpoint) and hub.is_hub_id(checkpoint)


def locate_pickled(name: str, storage_options: Mapping[str, object] | None = None) -> Path:
    """Return the local folder of a checkpoint with its pickled weights, fetched once from storage or from the hub.

    Of a repository that has safetensors, they are fetched in place of its pickles.

    Raises:
        CheckpointError: the folder does not exist, holds no checkpoint, or the hub does not provide it.
        StoreError: it cannot be read.
    """
    if scheme_of(name):
        return fetch(name, storage_options, with_pickles=True, languages=EVERY)
    if (folder := Path(normalise(name))).is_dir():
        return folder
    if hub.is_hub_id(name) and "/" in name:
        pinned = hub.pinned(name)
        folder = hub.local_folder(pinned, (*SMALL_FILES, *hub.WEIGHT_FILES, ADAPTERS))
        pickled = [] if any(folder.glob("model*.safetensors")) else [*hub.PICKLE_FILES]
        pickled += [] if any(folder.glob(ADAPTERS)) else [PICKLED_ADAPTERS]
        return hub.local_folder(pinned, pickled) if pickled else folder
    found = "a file" if folder.is_file() else "no such folder"
    raise CheckpointError(
        f"checkpoint {name!r}: {found}; expected a Hugging Face model folder with pytorch_model.bin, on a local disk "
        "or on object storage, a hub id ('owner/name'), or a .nemo file"
    )
