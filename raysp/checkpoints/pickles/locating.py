"""Location of a checkpoint with pickled weights, which nothing but a conversion fetches."""

from collections.abc import Mapping
from pathlib import Path

from raysp.checkpoints import hub
from raysp.checkpoints.fetching import EVERY, fetch
from raysp.checkpoints.pickles.folders import KEPT_FILES, LANGUAGE_MODEL
from raysp.errors import CheckpointError
from raysp.storage.store import normalise, scheme_of

SMALL_FILES = (*(one for one in KEPT_FILES if one != "*.safetensors"), f"{LANGUAGE_MODEL}/*")
ADAPTERS = "adapter.*.safetensors"
PICKLED_ADAPTERS = "adapter.*.bin"


def locate(name: str, storage_options: Mapping[str, object] | None = None) -> Path:
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
