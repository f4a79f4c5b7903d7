"""Language models of beam search: their files, and packed copies in the user's cache that processes share."""

import contextlib
import functools
import tempfile
from collections.abc import Mapping
from pathlib import Path

from raysp.checkpoints import eviction
from raysp.checkpoints.cache import cache_folder
from raysp.checkpoints.fetching import digest_content, fetch_file, place_folder
from raysp.errors import CheckpointError
from raysp.storage.store import normalise, scheme_of
from raysp.text.beams import arpa
from raysp.text.beams.arpa import Ngrams

FORMAT = 1
"""Version of packed models, increased when their files change."""
KIND = "language_models"


def locate(url: str, storage_options: Mapping[str, object] | None = None) -> Path:
    """Return the path of an ARPA file, fetched once from object storage.

    Raises:
        CheckpointError: there is no such file.
        StoreError: it cannot be read.
    """
    try:
        if scheme_of(url):
            return fetch_file(url, storage_options, KIND)
        if (path := Path(normalise(url))).is_file():
            return path
    except CheckpointError:
        pass
    raise CheckpointError(
        f"language model {url!r}: no such file; expected an ARPA file (.arpa or .arpa.gz), on a local disk or on "
        "object storage"
    )


def digest(path: Path) -> str:
    """Return the digest of a file, whatever its name."""
    return digest_content(path)


@functools.lru_cache(4)
def _opened(path: Path, content: str) -> Ngrams:
    """Return a model: mapped from its packed copy, which is written first if there is none."""
    with contextlib.suppress(OSError, RuntimeError):  # without a cache it is read into memory
        folder = cache_folder() / KIND / f"{content}-{FORMAT}"
        folder.parent.mkdir(parents=True, exist_ok=True)
        eviction.mark_used(folder)
        if not folder.is_dir():
            model = arpa.parse(path)
            part = Path(tempfile.mkdtemp(prefix=f"{folder.name}.part-", dir=folder.parent))
            arpa.save(model, part)
            place_folder(part, folder)
        eviction.remove_unused(folder.parent)
        return arpa.load(folder)
    return arpa.parse(path)


def open_model(path: Path) -> Ngrams:
    """Return the model of an ARPA file.

    Raises:
        CheckpointError: the file is not a whole ARPA file; with the number of the first wrong line.
    """
    return _opened(path, digest(path))
