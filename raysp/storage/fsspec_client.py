"""Requests to a file system of fsspec, by its own methods: memory, and read-only ones (http, hf, ...).

`Client` is the part that `FsspecStore` needs. `gcs_client` and `azure_client` make the requests to Google
Cloud Storage and Azure themselves, with conditions that the methods of fsspec do not have.
"""

import re
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from raysp import bounds
from raysp.storage.options import resolve

MARK = "raysp_write"
"""Name of the metadata that identifies one write, so that a write whose response was lost recognises its own file."""
_OF_COMMIT = re.compile(r"hf://(?:datasets/|spaces/)?[^/@]+/[^/@]+@[0-9a-f]{40}(?:/|$)")
"""A folder of the Hugging Face hub at a commit, whose files never change."""

Facts = Mapping[str, Any]
"""Facts of a file as its client returns them: `size`, a version, a time."""


class ReplacedError(Exception):
    """A file of another version than the one that was opened."""


class NoContainerError(Exception):
    """A bucket or container that does not exist."""


class Client(Protocol):
    """Requests to a file system. Places are paths of the file system: bucket or container, then the key."""

    def root(self, url: str) -> str:
        """Return the place of a url."""
        ...

    def list(self, prefix: str) -> Iterator[tuple[str, Facts]]:
        """Yield place and facts of the files whose place begins with `prefix`, sorted by place."""
        ...

    def facts(self, place: str) -> Facts | None:
        """Return the facts of a file, or None if it does not exist."""
        ...

    def fetch(self, place: str, first: int, last: int, of: Facts) -> bytes:
        """Return the bytes `first <= i < last` of the version with the facts `of`. Raises ReplacedError."""
        ...

    def read(self, place: str) -> bytes:
        """Return a whole file. Raises `bounds.TooLargeError` above `bounds.MOST_TABLE_BYTES`."""
        ...

    def write(self, place: str, body: bytes | Path, *, new: bool = False, over: Facts | None = None) -> Facts | None:
        """Write a file in one step, and return the facts of what was written.

        Returns None without a change if `new` is set and it exists, or if it is not the version with the facts `over`.
        """
        ...

    def delete(self, place: str) -> None:
        """Remove a file. Raises FileNotFoundError."""
        ...


def part_of(body: bytes | Path, first: int, num_bytes: int) -> bytes:
    """Return at most `num_bytes` of a file or its content, from the byte `first` on."""
    if isinstance(body, bytes):
        return body[first : first + num_bytes]
    with body.open("rb") as file:
        file.seek(first)
        return file.read(num_bytes)


def size_of(body: bytes | Path) -> int:
    """Return the size of a file or its content."""
    return len(body) if isinstance(body, bytes) else body.stat().st_size


class PlainClient:
    """Requests by the methods of fsspec, which have no condition: existence is checked before a write.

    Args:
        scheme: scheme of the urls.
        url: url of the folder.
        options: options of the file system.
    """

    def __init__(self, scheme: str, url: str, options: Mapping[str, object]) -> None:
        import fsspec

        self._files: Any = fsspec.filesystem(scheme, **resolve(options))
        self._is_constant = bool(_OF_COMMIT.match(url))
        self._reading = {"cache_type": "none"} if scheme == "hf" else {}  # else each range is read 5 MB ahead

    def root(self, url: str) -> str:
        """Return the place of a url."""
        return str(self._files._strip_protocol(url)).rstrip("/")

    def list(self, prefix: str) -> Iterator[tuple[str, Facts]]:
        """Yield place and facts of the files whose place begins with `prefix`, sorted by place."""
        self._refresh()
        try:
            found = self._files.find(prefix.rpartition("/")[0], detail=True)
        except FileNotFoundError:
            return
        yield from ((place, found[place]) for place in sorted(found) if place.startswith(prefix))

    def facts(self, place: str) -> Facts | None:
        """Return the facts of a file, or None if it does not exist."""
        self._refresh()
        try:
            found: Facts = self._files.info(place)
        except FileNotFoundError:
            return None
        return found if found["type"] == "file" else None

    def fetch(self, place: str, first: int, last: int, of: Facts) -> bytes:
        """Return the bytes `first <= i < last` of a file."""
        return bytes(self._files.cat_file(place, start=first, end=last, **self._reading))

    def read(self, place: str) -> bytes:
        """Return a whole file, read in parts, since a server may announce no size."""
        with self._files.open(place, "rb") as file:
            return bounds.read(file, bounds.MOST_TABLE_BYTES)

    def write(self, place: str, body: bytes | Path, *, new: bool = False, over: Facts | None = None) -> Facts | None:
        """Write a file after a look at the existing one, which no other thread of this process can change between."""
        with _writing:
            found = self.facts(place) if new or over else None
            if found is not None if new else found != over:
                return None
            self._files.pipe_file(place, body if isinstance(body, bytes) else body.read_bytes())
            return self.facts(place)

    def delete(self, place: str) -> None:
        """Remove a file."""
        self._files.rm_file(place)

    def _refresh(self) -> None:
        """Forget the listings that the client keeps, unless files here never change."""
        if not self._is_constant:
            self._files.invalidate_cache()


_writing = threading.Lock()  # memory:// is shared by threads only
