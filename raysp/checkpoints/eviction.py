"""Copies in the user's cache: which are in use, and the oldest of the others go when there are too many.

A process that uses a copy holds a shared lock on the file `<copy>.used` beside it until it ends; what has that lock
alone may remove the copy. Where the file system has no locks nothing is ever removed.
"""

import contextlib
import fcntl
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

KEPT_COPIES = 8
KEPT_BYTES = 100_000_000_000
"""Of all copies together, the one just brought included, and those in use, which stay however much they are."""

_USED = ".used"
_held: dict[str, int] = {}
"""Descriptors of the locks that this process holds, by copy."""


def mark_used(copy: Path) -> None:
    """Keep a copy, there or not yet, from being removed while this process lives; it counts as used just now."""
    place = copy.with_name(f"{copy.name}{_USED}")
    if str(copy) in _held:
        return
    with contextlib.suppress(OSError):  # neither written to nor locked: then nothing will be removed either
        _held[str(copy)] = descriptor = os.open(place, os.O_RDWR | os.O_CREAT, 0o644)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        os.utime(place)


def forget_used() -> None:
    """Give back what `mark_used` took: this process uses none of its copies any more."""
    while _held:
        os.close(_held.popitem()[1])


def remove_unused(folder: Path) -> None:
    """Remove the copies in a folder that were not used for the longest time, down to what is kept."""
    copies = sorted(_copies(folder), key=_last_use, reverse=True)
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


def _last_use(copy: Path) -> float:
    return copy.with_name(f"{copy.name}{_USED}").stat().st_mtime


def _remove(copy: Path) -> bool:
    """Remove a copy unless a process uses it; it is out of the way before its files go, whoever is killed."""
    with copy.with_name(f"{copy.name}{_USED}").open("r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        gone = copy.with_name(f"{copy.name}.part-{uuid.uuid4().hex}")
        copy.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)
    return True
