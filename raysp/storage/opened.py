"""Open files: entry with version, first bytes, and random access to the rest; and locks of files."""

import errno
import fcntl
import functools
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Protocol

from raysp.errors import StoreError

logger = logging.getLogger(__name__)

DIGEST_BYTES = 16


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of a listing."""

    path: str
    """Path relative to the store's root, with `/`."""
    num_bytes: int
    version: str
    """Version of the content: modification time in nanoseconds locally, the etag on object stores."""
    modified: float | None = field(default=None, compare=False)
    """Modification time in seconds since the epoch by the store's clock; None if unknown."""
    checksum: str = field(default="", compare=False)
    """Checksum of the content alone, if the store has one besides the version; empty otherwise."""


class ReadableFile(Protocol):
    """A file for random access."""

    def read(self, num_bytes: int, /) -> bytes:
        """Read at most `num_bytes`. Fewer are returned only at the end."""
        ...

    def seek(self, offset: int, whence: int, /) -> int:
        """Move the position and return it."""
        ...


@dataclass(frozen=True, slots=True)
class Opened:
    """An open file. Reads fail after the file is replaced, where the store detects it."""

    entry: Entry
    head: bytes
    """The first bytes, as many as requested, or the whole file if it is shorter."""
    file: ReadableFile


class LocalFile:
    """A file over an open descriptor, which is closed with the object.

    Args:
        descriptor: the descriptor.
        status: its status when it was opened.
        place: path of the file, for messages.
    """

    __slots__ = ("_descriptor", "_place", "_position", "_status")

    def __init__(self, descriptor: int, status: os.stat_result, place: str) -> None:
        self._descriptor = descriptor
        self._status = status
        self._place = place
        self._position = 0

    def read(self, num_bytes: int, /) -> bytes:
        """Read at most `num_bytes`. Fewer are returned only at the end.

        Raises:
            StoreError: the file was written after it was opened.
        """
        data = os.pread(self._descriptor, num_bytes, self._position)
        now, then = os.fstat(self._descriptor), self._status
        if (now.st_size, now.st_mtime_ns) != (then.st_size, then.st_mtime_ns):
            raise StoreError(f"{self._place}: it was replaced while it was read; run again")
        self._position += len(data)
        return data

    def seek(self, offset: int, whence: int, /) -> int:
        """Move the position and return it."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._status.st_size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def __del__(self) -> None:
        os.close(self._descriptor)


def content_of(entry: Entry) -> str:
    """Return the identifier of a file's content by its store: its size, and a checksum, or else its version.

    The version is the etag on S3, which is a checksum of the content and of the sizes in which it was uploaded.
    """
    return f"{entry.num_bytes}:{entry.checksum or entry.version}"


def digest_of(*parts: bytes | memoryview) -> bytes:
    """Return the digest of some bytes."""
    digest = blake2b(digest_size=DIGEST_BYTES)
    for part in parts:
        digest.update(part)
    return digest.digest()


WAIT_SECONDS = 60.0
POLL_SECONDS = 0.02
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
"""Errors of file systems without locks: network mounts without a lock server, buckets mounted as folders."""


def flock(descriptor: int, *, shared: bool = False, wait: bool = False) -> None:
    """Lock an open file until it is closed.

    Raises:
        BlockingIOError: another process holds the lock, and `wait` is False.
        OSError: the file system has no such locks.
    """
    fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))


@contextmanager
def locked(place: Path) -> Iterator[None]:
    """Hold the lock on a file, which is not removed afterwards.

    Where there are no locks (`flock`), it has no effect, and a warning says so once per folder.

    Raises:
        StoreError: another process has held the lock for `WAIT_SECONDS`, so it is paused.
        OSError: the file cannot be created.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    # The file stays: a process that waits for a removed one would get a lock that later processes do not see.
    with place.open("ab") as file:
        latest = time.monotonic() + WAIT_SECONDS
        while True:
            try:
                flock(file.fileno())
                break
            except BlockingIOError:
                if time.monotonic() > latest:
                    raise StoreError(
                        f"{place}: another process has held this lock for {WAIT_SECONDS:g} s, so it is paused; "
                        "resume or end it, and run again"
                    ) from None
                time.sleep(POLL_SECONDS)
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise
                _warn(place.parent, str(error.strerror))
                break
        yield  # closing the file releases the lock


@functools.cache
def _warn(folder: Path, reason: str) -> None:
    logger.warning(
        "%s: files cannot be locked here (%s): of two runs that replace the same file at the same moment, neither "
        "notices the other; start one run at a time",
        folder,
        reason,
    )
