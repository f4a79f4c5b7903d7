"""Confinement of untrusted recording paths to one folder."""

import os
import stat
import unicodedata
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import PurePosixPath

from raysp.errors import AudioError, StoreError
from raysp.storage.contents import content_of
from raysp.storage.opened import Opened
from raysp.storage.store import SCHEME, LocalStore, RefusedError, explain, open_store
from raysp.storage.versions import version_of, versions

HEAD_BYTES = 64 * 1024
"""Bytes read when a recording is opened: a short one whole, the header of a longer one."""


class OpenRecording:
    """An open recording: path, version and bytes as of the time it was opened."""

    def __init__(self, path: str, opened: Opened) -> None:
        self.path = path
        """Relative to the root."""
        self.version = version_of(opened.entry)
        self.num_bytes = opened.entry.num_bytes
        self.head = opened.head
        self._file = opened.file
        self._position = 0

    @property
    def is_whole(self) -> bool:
        """Whether `head` holds the whole recording."""
        return len(self.head) == self.num_bytes

    def read(self, num_bytes: int = -1, /) -> bytes:
        """Read at most `num_bytes`, by default all remaining bytes. Fewer are returned only at the end."""
        num_bytes = self.num_bytes - self._position if num_bytes < 0 else num_bytes
        data = self.head[self._position : self._position + num_bytes]
        if not data and num_bytes > 0:
            self._file.seek(self._position, os.SEEK_SET)
            data = self._file.read(num_bytes)
        elif len(data) < min(num_bytes, self.num_bytes - self._position):
            self._file.seek(len(self.head), os.SEEK_SET)
            data += self._file.read(num_bytes - len(data))
        self._position += len(data)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Move the position and return it."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.num_bytes}[whence]
        self._position = max(0, start + offset)
        return self._position


class AudioRoot:
    """A folder of recordings. Paths that lead out of it are refused.

    Args:
        url: url of the folder.
        storage_options: options of its storage.
    """

    def __init__(self, url: str, storage_options: Mapping[str, object] | None = None) -> None:
        self.store = open_store(url, storage_options)
        self.url = self.store.url.rstrip("/")
        self.real = os.path.realpath(self.url) if isinstance(self.store, LocalStore) else ""

    def open(self, path: str, head_bytes: int = HEAD_BYTES) -> OpenRecording:
        """Open a recording, with one request where the storage supports it.

        Args:
            path: relative to the root, or absolute inside it.
            head_bytes: bytes to read immediately.

        Raises:
            AudioError: `path_not_allowed` or `not_found`.
            RefusedError: permission is missing.
            StoreError: the storage fails.
        """
        if self.url.startswith(("http://", "https://")):
            raise self._not_allowed(path, "a web server may redirect anywhere, also to private addresses")
        relative = self.inside(path)
        opened = (
            self._open_local(path, relative, head_bytes) if self.real else self.store.open_version(relative, head_bytes)
        )
        if opened is None:
            raise self._not_found(path)
        return OpenRecording(relative, opened)

    def versions(self, paths: Collection[str]) -> dict[str, str]:
        """Return the current versions of recordings by path. Missing and refused ones are omitted.

        Args:
            paths: relative to the root.

        Raises:
            StoreError: the storage fails.
        """
        return versions(self.store, paths)

    def contents(self, paths: Collection[str]) -> dict[str, str]:
        """Return what the store knows of the current contents of recordings, as `versions`."""
        return versions(self.store, paths, content_of)

    def is_refused(self) -> bool:
        """Return whether even listing the folder is refused."""
        try:
            next(self.store.list(), None)
        except RefusedError:
            return True
        return False

    def inside(self, path: str) -> str:
        """Return the path relative to the root, by its text alone, without access to the storage.

        Raises:
            AudioError: `path_not_allowed`.
        """
        inside = path.removeprefix(f"{self.url}/")
        if SCHEME.match(inside):
            raise self._not_allowed(path, "it has another url scheme")
        if "\0" in inside or ".." in PurePosixPath(inside).parts:
            raise self._not_allowed(path, "it contains '..' or NUL")
        if inside.startswith("/"):
            raise self._not_allowed(path, "it is absolute and outside the folder")
        return inside

    def _open_local(self, path: str, relative: str, head_bytes: int) -> Opened | None:
        """Open the resolved path, so that no link is followed after the check."""
        try:
            real = os.path.realpath(os.path.join(self.real, relative), strict=True)  # noqa: PTH118
            kind = os.stat(real).st_mode  # noqa: PTH116
        except (FileNotFoundError, NotADirectoryError):
            raise self._not_found(path) from None
        except PermissionError as error:  # a parent folder is not accessible
            raise explain(error, "read", os.path.join(self.real, relative)) from error  # noqa: PTH118
        except (OSError, ValueError) as error:  # a loop of links, a name too long
            raise self._not_allowed(path, f"it cannot be followed ({error})") from None
        if not real.startswith(f"{self.real.rstrip('/')}/"):
            raise self._not_allowed(path, "a link leads outside the folder")
        if not stat.S_ISREG(kind):
            raise self._not_allowed(path, "it is not a file")
        return LocalStore(self.real).open_version(os.path.relpath(real, self.real), head_bytes)

    def _not_allowed(self, path: str, why: str) -> AudioError:
        return AudioError("path_not_allowed", f"path {path!r:.200}: {why}; expected a file in {self.url}")

    def _not_found(self, path: str) -> AudioError:
        form = self._other_form(path)
        more = f"; its name is there in the Unicode form {form}: write the path in that form" if form else ""
        return AudioError("not_found", f"path {path!r:.200}: no such file in {self.url}{more}")

    def _other_form(self, path: str) -> str:
        """Return the Unicode normal form in which a missing file exists; empty if there is none."""
        if path.isascii():
            return ""
        relative = self.inside(path)
        for form in ("NFC", "NFD"):
            other = unicodedata.normalize(form, relative)
            with suppress(StoreError, ValueError):
                if other != relative and self.store.stat(other) is not None:
                    return form
        return ""
