"""Checkpoints on storage: their local copies, and hashes of their contents."""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from raysp.checkpoints import eviction
from raysp.checkpoints.cache import cache_folder, read_cached, write_cached
from raysp.errors import CheckpointError, StoreError
from raysp.storage.store import Entry, Store, explain, open_store

DIGESTS = "digests.json"
_READ_BYTES = 8 * 1024 * 1024
WANTED = (".json", ".safetensors", ".txt", ".model")
"""Suffixes of the files to fetch: configuration, weights, tokenizer. Pickles and training state are not fetched."""


def fetch(url: str, storage_options: Mapping[str, object] | None = None) -> Path:
    """Download a checkpoint folder, once per machine, and return its path in the user's cache.

    The name of the copy contains a hash of each file's path, size and version, so that a changed checkpoint gets a copy
    of its own. The copy appears atomically, even if a process is killed during the download. It is kept until this
    process ends. Of unused copies only the most recent ones are kept.

    Raises:
        CheckpointError: the folder holds no checkpoint.
        StoreError: the checkpoint cannot be read, or there is no space for it.
    """
    store = open_store(url, storage_options)
    entries = _wanted(store)
    facts = json.dumps([store.url, *([e.path, e.num_bytes, e.version] for e in entries)])
    name = f"{store.url.rpartition('/')[2]}-{hashlib.sha256(facts.encode()).hexdigest()[:16]}"
    folder = cache_folder() / "checkpoints" / name
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        eviction.mark_used(folder)
        if not folder.is_dir():
            with _locked(folder.with_name(f"{name}.lock")) as alone:
                if alone:
                    _remove_parts(folder)
                if not folder.is_dir():
                    _download(store, entries, folder)
            eviction.remove_unused(folder.parent)
    except OSError as error:
        if isinstance(error, StoreError):
            raise
        raise explain(error, "keep a checkpoint in", folder.parent) from error
    return folder


def _wanted(store: Store) -> list[Entry]:
    there = [entry for entry in store.list() if "/" not in entry.path]
    if "config.json" not in {entry.path for entry in there}:
        found = ", ".join(entry.path for entry in there[:5]) or "nothing"
        raise CheckpointError(
            f"checkpoint {store.url!r}: no config.json there, found {found}; expected a Hugging Face model folder "
            "(config.json, model.safetensors)"
        )
    if not any(entry.path.endswith(".safetensors") for entry in there):
        found = ", ".join(entry.path for entry in there[:5])
        raise CheckpointError(
            f"checkpoint {store.url!r}: no weights there, found {found}; expected model.safetensors: complete the "
            "checkpoint, or convert a pickle if you trust it"
        )
    return [entry for entry in there if entry.path.endswith(WANTED)]


@contextlib.contextmanager
def _locked(place: Path) -> Iterator[bool]:
    """Hold an exclusive lock on `place`, waiting for other processes. The system releases it when its holder ends.

    Yields False where the file system has no locks. Several processes may then download the same copy, and one rename
    wins.
    """
    with place.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            alone = True
        except OSError:
            alone = False
        yield alone


def _remove_parts(folder: Path) -> None:
    """Remove partial downloads of this folder, left by processes that were killed."""
    for left in folder.parent.glob(f"{folder.name}.part-*"):
        shutil.rmtree(left, ignore_errors=True)


def _download(store: Store, entries: Sequence[Entry], folder: Path) -> None:
    part = Path(tempfile.mkdtemp(prefix=f"{folder.name}.part-", dir=folder.parent))
    try:
        for entry in entries:
            _copy(store, entry, part / entry.path)
        if _wanted(store) != list(entries):
            raise StoreError(f"{store.url}: the checkpoint changed while it was downloaded; run again")
        try:
            part.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process was faster
                raise
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _copy(store: Store, entry: Entry, place: Path) -> None:
    with store.open(entry.path) as stream, place.open("wb") as file:
        while chunk := stream.read(_READ_BYTES):
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    if (found := place.stat().st_size) != entry.num_bytes:
        raise StoreError(f"{store.url}/{entry.path}: received {found:,} bytes, expected {entry.num_bytes:,}; run again")


def digest_files(folder: Path, files: Sequence[Path]) -> str:
    """Hash names and contents of a checkpoint's files to 16 hexadecimal digits.

    The hash of each file is cached in the user's cache folder by path, size, modification time and inode.
    """
    known = _read_cache()
    whole = hashlib.sha256()
    fresh: dict[str, str] = {}
    for file in sorted(files):
        facts = file.stat()
        key = f"{file.resolve()}\0{facts.st_size}\0{facts.st_mtime_ns}\0{facts.st_ino}"
        content = known.get(key) or _digest_file(file)
        fresh[key] = content
        whole.update(f"{file.relative_to(folder).as_posix()}\0{content}\n".encode())
    if not fresh.items() <= known.items():
        write_cached(DIGESTS, json.dumps(known | fresh).encode())
    return whole.hexdigest()[:16]


def _digest_file(file: Path) -> str:
    found = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(_READ_BYTES):
            found.update(chunk)
    return found.hexdigest()


def _read_cache() -> dict[str, str]:
    try:
        found = json.loads(read_cached(DIGESTS) or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
