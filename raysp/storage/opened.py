"""Open files: entry with version, first bytes, and random access to the rest."""

import os
from dataclasses import dataclass, field
from typing import Protocol


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
    """Checksum of the content alone, where the store has one beside the version; empty otherwise."""


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
    """A file over an open descriptor, which is closed with the object."""

    __slots__ = ("_descriptor", "_num_bytes", "_position")

    def __init__(self, descriptor: int, num_bytes: int) -> None:
        self._descriptor = descriptor
        self._num_bytes = num_bytes
        self._position = 0

    def read(self, num_bytes: int, /) -> bytes:
        """Read at most `num_bytes`. Fewer are returned only at the end."""
        data = _pread(self._descriptor, num_bytes, self._position)
        self._position += len(data)
        return data

    def seek(self, offset: int, whence: int, /) -> int:
        """Move the position and return it."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._num_bytes}[whence]
        self._position = max(0, start + offset)
        return self._position

    def __del__(self) -> None:
        os.close(self._descriptor)


def _pread(descriptor: int, num_bytes: int, position: int) -> bytes:
    if hasattr(os, "pread"):
        return os.pread(descriptor, num_bytes, position)
    os.lseek(descriptor, position, os.SEEK_SET)  # Windows
    return os.read(descriptor, num_bytes)
