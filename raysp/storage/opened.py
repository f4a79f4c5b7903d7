"""A file as it was when it was opened: its version, its first bytes, and the way to the others."""

import os
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Entry:
    """One file as a listing shows it."""

    path: str
    """Relative to the store's root, with `/`."""
    num_bytes: int
    version: str
    """Changes when the content does: modification time in nanoseconds locally, the etag on object stores."""
    modified: float | None = field(default=None, compare=False)
    """Seconds since the epoch by the store's clock; None where it does not say."""


class ReadableFile(Protocol):
    """A file for random access."""

    def read(self, num_bytes: int, /) -> bytes:
        """Read at most `num_bytes`; fewer only at the end."""
        ...

    def seek(self, offset: int, whence: int, /) -> int:
        """Move; return the place."""
        ...


@dataclass(frozen=True, slots=True)
class Opened:
    """An open file; later reads fail once it was replaced, where its store can tell."""

    entry: Entry
    head: bytes
    """As many of its first bytes as were asked for; all of them where there are no more."""
    file: ReadableFile


class LocalFile:
    """An open descriptor as a file; closed when nothing refers to it."""

    __slots__ = ("_descriptor", "_num_bytes", "_position")

    def __init__(self, descriptor: int, num_bytes: int) -> None:
        self._descriptor = descriptor
        self._num_bytes = num_bytes
        self._position = 0

    def read(self, num_bytes: int, /) -> bytes:
        """Read at most `num_bytes`; fewer only at the end."""
        data = os.pread(self._descriptor, num_bytes, self._position)
        self._position += len(data)
        return data

    def seek(self, offset: int, whence: int, /) -> int:
        """Move; return the place."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._num_bytes}[whence]
        self._position = max(0, start + offset)
        return self._position

    def __del__(self) -> None:
        os.close(self._descriptor)
