"""Checkpoints on storage: local copies in the user's cache folder, of which unused ones are removed, and their hashes.

The cache is optional: nothing fails if a small file cannot be read or written. Of copies the least recently used is
removed first, never one in use. A process that uses a copy holds a shared lock on the file `<copy>.used` beside it
until the process ends. Removing a copy requires the exclusive lock. Where the file system has no
locks, no copy is removed.
"""

import contextlib
import functools
import hashlib
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from raysp.checkpoints.contents import ADAPTER, PICKLED, adapter_name, announced, explanation
from raysp.errors import CheckpointError, StoreError
from raysp.storage.opened import flock
from raysp.storage.store import Entry, Store, explain, split_url
from raysp.storage.stores import open_store

KEPT_COPIES = 8
KEPT_BYTES = 100_000_000_000
"""Maximum total bytes of all copies, including the newest one. Copies in use count, but are never removed."""
_USED = ".used"
_held: dict[str, int] = {}
"""File descriptors of the locks held by this process, by copy."""


def cache_folder() -> Path:
    """Return raysp's folder in the user's cache.

    Raises:
        RuntimeError: neither XDG_CACHE_HOME nor a home folder is known.
    """
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "raysp"


def read_cached(name: str) -> bytes | None:
    """Return the content of a file of the cache; None if it cannot be read."""
    try:
        return (cache_folder() / name).read_bytes()
    except (OSError, RuntimeError):
        return None


def write_cached(name: str, content: bytes) -> None:
    """Write a file of the cache atomically, if the cache can be written."""
    with contextlib.suppress(OSError, RuntimeError):
        place = cache_folder() / name
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=place.parent, delete=False) as file:
            file.write(content)
        Path(file.name).replace(place)


def mark_used(copy: Path) -> None:
    """Lock a copy, which need not exist yet, against removal until this process ends, and update its time of use."""
    place = copy.with_name(f"{copy.name}{_USED}")
    if str(copy) in _held:
        return
    with contextlib.suppress(OSError):  # read-only or without locks: then no copy can be removed either
        # Never closed before the end: the system releases the lock with the process, however it ends.
        _held[str(copy)] = descriptor = os.open(place, os.O_RDWR | os.O_CREAT, 0o644)
        flock(descriptor, shared=True, wait=True)
        os.utime(place)


def forget_used() -> None:
    """Release all locks taken by `mark_used`: this process no longer uses its copies."""
    while _held:
        os.close(_held.popitem()[1])


def remove_unused(folder: Path) -> None:
    """Remove the least recently used copies of a folder, down to `KEPT_COPIES` and `KEPT_BYTES`."""
    used = {copy: copy.with_name(f"{copy.name}{_USED}").stat().st_mtime for copy in _copies(folder)}
    copies = sorted(used, key=used.__getitem__, reverse=True)
    total = 0
    for number, copy in enumerate(copies, 1):
        num_bytes = sum(file.stat().st_size for file in copy.iterdir())
        total += num_bytes
        if (number > KEPT_COPIES or total > KEPT_BYTES) and _remove(copy):
            total -= num_bytes


def _copies(folder: Path) -> Iterator[Path]:
    for used in folder.glob(f"*{_USED}"):
        if (copy := used.with_name(used.name.removesuffix(_USED))).is_dir():
            yield copy


def _remove(copy: Path) -> bool:
    """Remove a copy unless a process uses it. It is renamed first, so that no kill leaves a partial copy."""
    with copy.with_name(f"{copy.name}{_USED}").open("r+") as file:
        try:
            flock(file.fileno())
        except OSError:
            return False
        # The `.used` file stays: a process may wait for its lock, which a new file of this name would not have.
        gone = copy.with_name(f"{copy.name}.part-{uuid.uuid4().hex}")
        copy.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)
    return True


DIGESTS = "digests.json"
KEPT_DIGESTS = 4_000
"""Maximum number of cached hashes, besides those of one checkpoint: each plan reads them. MMS has over a thousand."""
_READ_BYTES = 8 * 1024 * 1024
FETCHED_ENDINGS = (".json", ".jinja", ".safetensors", ".txt", ".model", "README.md")
"""Ends of the names of files to fetch: configuration, weights, tokenizer, card; not pickles and training state."""
EVERY = ("*",)
"""In place of names of languages: all languages with adapters."""


@dataclass(frozen=True)
class _Copied:
    """Source of a copy that this process uses."""

    store: Store
    adapters: Mapping[str, Entry]
    """All files of adapters on storage, by name; the copy has the requested ones."""


_copied: dict[Path, _Copied] = {}


def fetch(
    url: str,
    storage_options: Mapping[str, object] | None = None,
    *,
    with_pickles: bool = False,
    languages: Sequence[str] | None = None,
    other: Collection[str] = (),
) -> Path:
    """Download a checkpoint folder, once per machine, and return its path in the user's cache.

    The name of the copy contains a hash of each file's path, size and version, so that a changed checkpoint gets a copy
    of its own. The copy appears atomically, even if a process is killed during the download. It is kept until this
    process ends. Of unused copies only the most recent ones are kept.

    Args:
        url: the folder.
        storage_options: options of its storage.
        with_pickles: fetch pickled weights too, which nothing but a conversion reads.
        languages: languages whose adapters are fetched, or `EVERY`; None: the announced language. `fetch_adapter`
            fetches more later.
        other: names of weights in other formats that are fetched too; safetensors are then not required.

    Raises:
        CheckpointError: the folder holds no checkpoint.
        StoreError: the checkpoint cannot be read, or there is no space for it.
    """
    store = open_store(url, storage_options)
    list_entries = functools.partial(_checkpoint_entries, with_pickles=with_pickles, other=other)
    entries = list_entries(store)
    folder = cache_folder() / "checkpoints" / f"{store.url.rpartition('/')[2]}-{_digest_entries(store, entries)}"
    with kept(folder, "a checkpoint") as is_missing:
        if is_missing:
            with _locked(folder.with_name(f"{folder.name}.lock")) as alone:
                if alone:  # partial downloads belong to killed processes
                    for left in folder.parent.glob(f"{folder.name}.part-*"):
                        shutil.rmtree(left, ignore_errors=True)
                if not folder.is_dir():
                    _download(store, entries, folder, list_entries)
    adapters = {entry.path: entry for entry in entries if ADAPTER.fullmatch(entry.path)}
    _copied[folder] = _Copied(store, adapters)
    if languages is None:
        languages = [language for language in (announced(folder),) if language is not None]
    for name in adapters if languages == EVERY else map(adapter_name, languages):
        fetch_adapter(folder, name)
    return folder


def is_copy(folder: Path) -> bool:
    """Return whether a folder is a copy of a checkpoint on storage, which may lack adapters of languages."""
    return folder in _copied


def fetch_adapter(folder: Path, name: str) -> None:
    """Download the adapter of a language into a copy of a checkpoint, unless it is there or the checkpoint lacks it.

    Raises:
        StoreError: it cannot be read, changed since the copy was made, or there is no space for it.
    """
    copied = _copied[folder]
    if (entry := copied.adapters.get(name)) is None or (folder / name).is_file():
        return
    try:
        with tempfile.TemporaryDirectory(prefix=f"{folder.name}.part-", dir=folder.parent) as part:
            _copy(copied.store, entry, Path(part, name))
            # After the download, so that a file that was replaced meanwhile is not kept.
            if copied.store.stat(name) != entry:
                raise StoreError(f"{copied.store.url}/{name}: the checkpoint changed while it was used; run again")
            Path(part, name).replace(folder / name)
    except (StoreError, CheckpointError):
        raise
    except OSError as error:
        raise explain(error, "keep a checkpoint in", folder) from error


def digest_adapters(folder: Path) -> str:
    """Hash names, sizes and versions of all adapters of a copied checkpoint, fetched or not."""
    facts = [[entry.path, entry.num_bytes, entry.version] for _, entry in sorted(_copied[folder].adapters.items())]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def fetch_file(url: str, storage_options: Mapping[str, object] | None, kind: str) -> Path:
    """Download a file, once per machine and version, and return its path in the user's cache.

    Args:
        url: the file.
        storage_options: options of its storage.
        kind: folder of the cache, in which copies are kept as those of checkpoints are.

    Raises:
        CheckpointError: there is no such file.
        StoreError: it cannot be read, or there is no space for it.
    """
    parent, name = split_url(url)
    store = open_store(parent, storage_options)
    entry = store.stat(name)
    if entry is None:
        raise CheckpointError(f"{url!r}: no such file; correct the url")
    folder = cache_folder() / kind / _digest_entries(store, [entry])
    with kept(folder, "a file") as is_missing:
        if is_missing:
            with new_copy(folder) as part:
                _copy(store, entry, part / name)
    return folder / name


def fetch_folder(
    url: str, storage_options: Mapping[str, object] | None, kind: str, endings: tuple[str, ...]
) -> Path | None:
    """Download files of a folder, once per machine and version, and return the path of the copy; None without files.

    Args:
        url: the folder.
        storage_options: options of its storage.
        kind: folder of the cache, in which copies are kept as those of checkpoints are.
        endings: ends of the names of the files.

    Raises:
        StoreError: it cannot be read, or there is no space for it.
    """
    store = open_store(url, storage_options)

    def list_entries(store: Store) -> list[Entry]:
        return [entry for entry in store.list() if "/" not in entry.path and entry.path.endswith(endings)]

    entries = list_entries(store)
    if not entries:
        return None
    folder = cache_folder() / kind / _digest_entries(store, entries)
    with kept(folder, "files") as is_missing:
        if is_missing:
            _download(store, entries, folder, list_entries)
    return folder


def _digest_entries(store: Store, entries: Sequence[Entry]) -> str:
    """Hash paths, sizes and versions of files to 16 hexadecimal digits."""
    facts = json.dumps([store.url, *([entry.path, entry.num_bytes, entry.version] for entry in entries)])
    return hashlib.sha256(facts.encode()).hexdigest()[:16]


@contextlib.contextmanager
def kept(folder: Path, files: str) -> Iterator[bool]:
    """Yield whether a copy is missing in the cache. The block then makes it, after which unused copies are removed.

    Raises:
        StoreError: there is no space, or the cache cannot be written.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Before the look: from here on no other process removes the copy.
        mark_used(folder)
        is_missing = not folder.is_dir()
        yield is_missing
        if is_missing:
            remove_unused(folder.parent)
    except (StoreError, CheckpointError):
        raise
    except OSError as error:
        raise explain(error, f"keep {files} in", folder.parent) from error


@contextlib.contextmanager
def new_copy(folder: Path) -> Iterator[Path]:
    """Yield a folder to fill, which is then renamed to `folder`, unless another process was faster."""
    part = Path(tempfile.mkdtemp(prefix=f"{folder.name}.part-", dir=folder.parent))
    try:
        yield part
        try:
            part.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _checkpoint_entries(store: Store, *, with_pickles: bool, other: Collection[str]) -> list[Entry]:
    entries = [entry for entry in store.list() if "/" not in entry.path]
    if "config.json" not in {entry.path for entry in entries}:
        names = ", ".join(entry.path for entry in entries[:5]) or "nothing"
        raise CheckpointError(
            f"checkpoint {store.url!r}: no config.json there, found {names}; expected a Hugging Face model folder "
            "(config.json, model.safetensors)"
        )
    if with_pickles:
        return [entry for entry in entries if entry.path.endswith(FETCHED_ENDINGS) or PICKLED.fullmatch(entry.path)]
    if not any(entry.path.endswith(".safetensors") or entry.path in other for entry in entries):
        reason = explanation(store.url, (entry.path for entry in entries))
        raise CheckpointError(f"checkpoint {store.url!r}: {reason}")
    return [entry for entry in entries if entry.path.endswith(FETCHED_ENDINGS) or entry.path in other]


@contextlib.contextmanager
def _locked(place: Path) -> Iterator[bool]:
    """Hold an exclusive lock on `place`, waiting for other processes. The system releases it when its holder ends.

    Yields False where the file system has no locks. Several processes may then download the same copy, and one rename
    wins.
    """
    with place.open("w") as file:
        try:
            flock(file.fileno(), wait=True)
            alone = True
        except OSError:
            alone = False
        yield alone


def _download(store: Store, entries: Sequence[Entry], folder: Path, listing: Callable[[Store], list[Entry]]) -> None:
    with new_copy(folder) as part:
        for entry in (entry for entry in entries if not ADAPTER.fullmatch(entry.path)):
            _copy(store, entry, part / entry.path)
        # After the download: otherwise the copy could mix files of two versions.
        if listing(store) != list(entries):
            raise StoreError(f"{store.url}: the checkpoint changed while it was downloaded; run again")


def _copy(store: Store, entry: Entry, place: Path) -> None:
    with store.open(entry.path) as stream, place.open("wb") as file:
        while chunk := stream.read(_READ_BYTES):
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())  # before the rename: a machine that fails leaves no copy with holes under its name
    if (copied := place.stat().st_size) != entry.num_bytes:
        raise StoreError(
            f"{store.url}/{entry.path}: received {copied:,} bytes, expected {entry.num_bytes:,}; run again"
        )


def digest_files(folder: Path, files: Sequence[Path]) -> str:
    """Hash names and contents of a checkpoint's files to 16 hexadecimal digits.

    The hash of each file is cached in the user's cache folder by path, size, modification time and inode.
    """
    whole = hashlib.sha256()
    ordered = sorted(files)
    for file, content in zip(ordered, _contents(ordered), strict=True):
        whole.update(f"{file.relative_to(folder).as_posix()}\0{content}\n".encode())
    return whole.hexdigest()[:16]


def digest_content(file: Path) -> str:
    """Hash the content of a file to 16 hexadecimal digits, cached as `digest_files` does."""
    return _contents([file])[0][:16]


def _contents(files: Sequence[Path]) -> list[str]:
    digests: dict[str, str] = {}
    with contextlib.suppress(ValueError):  # another program wrote the cache
        cached = json.loads(read_cached(DIGESTS) or b"{}")
        digests = cached if isinstance(cached, dict) else {}
    fresh: dict[str, str] = {}
    for file in files:
        facts = file.stat()
        key = f"{file.resolve()}\0{facts.st_size}\0{facts.st_mtime_ns}\0{facts.st_ino}"
        if key not in digests:
            with file.open("rb") as stream:
                fresh[key] = hashlib.file_digest(stream, "sha256").hexdigest()
        else:
            fresh[key] = digests[key]
    if not fresh.items() <= digests.items():
        older = [(key, digest) for key, digest in digests.items() if key not in fresh]
        newest = [*older, *fresh.items()][-max(KEPT_DIGESTS, len(fresh)) :]
        write_cached(DIGESTS, json.dumps(dict(newest)).encode())
    return list(fresh.values())
