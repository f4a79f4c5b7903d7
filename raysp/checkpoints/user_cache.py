"""The user's cache folder: small files, and copies of checkpoints, of which unused ones are removed.

The cache is optional: nothing fails if a small file cannot be read or written. Of copies the least recently used is
removed first, never one in use. A process that uses a copy holds a shared lock on the file `<copy>.used` beside it
until the process ends. Removing a copy requires the exclusive lock. Where the file system has no locks, no
copy is removed.
"""

import contextlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

from raysp.storage.locking import flock

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
