"""The one place below which recordings may be read by a path that a stranger wrote."""

import os
import stat
from collections.abc import Collection, Mapping
from pathlib import PurePosixPath

from raysp.errors import AudioError
from raysp.storage.opened import Opened
from raysp.storage.store import SCHEME, LocalStore, RefusedError, explain, open_store
from raysp.storage.versions import version_of, versions

HEAD_BYTES = 64 * 1024
"""Read with the opening of a recording: all of a short one, the header of a longer one."""


class OpenRecording:
    """A recording as it was when it was opened: its path, its version and its bytes."""

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
        """Whether `head` is all of it."""
        return len(self.head) == self.num_bytes

    def read(self, num_bytes: int = -1, /) -> bytes:
        """Read at most `num_bytes`, all that is left by default; fewer only at the end."""
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
        """Move; return the place."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.num_bytes}[whence]
        self._position = max(0, start + offset)
        return self._position


class AudioRoot:
    """A folder of recordings, which no path leaves.

    Args:
        url: of the folder.
        storage_options: how to reach it.
    """

    def __init__(self, url: str, storage_options: Mapping[str, object] | None = None) -> None:
        self.store = open_store(url, storage_options)
        self.url = self.store.url.rstrip("/")
        self.real = os.path.realpath(self.url) if isinstance(self.store, LocalStore) else ""

    def open(self, path: str, head_bytes: int = HEAD_BYTES) -> OpenRecording:
        """Open a recording, by one request where the storage can.

        Args:
            path: relative to the root; or absolute, inside it.
            head_bytes: read at once.

        Raises:
            AudioError: `path_not_allowed` or `not_found`.
            RefusedError: for want of permission.
            StoreError: the storage fails.
        """
        if self.url.startswith(("http://", "https://")):
            raise self._not_allowed(path, "a web server may lead anywhere, also to private addresses")
        relative = self.inside(path)
        opened = (
            self._open_local(path, relative, head_bytes) if self.real else self.store.open_version(relative, head_bytes)
        )
        if opened is None:
            raise self._not_found(path)
        return OpenRecording(relative, opened)

    def versions(self, paths: Collection[str]) -> dict[str, str]:
        """Return the current versions of recordings by path; those that are gone, or refused, are absent.

        Args:
            paths: relative to the root.

        Raises:
            StoreError: the storage fails.
        """
        return versions(self.store, paths)

    def is_refused(self) -> bool:
        """Return whether not even the folder's names may be read."""
        try:
            next(self.store.list(), None)
        except RefusedError:
            return True
        return False

    def inside(self, path: str) -> str:
        """Return the path relative to the root, from its letters alone.

        Raises:
            AudioError: `path_not_allowed`.
        """
        inside = path.removeprefix(f"{self.url}/")
        if SCHEME.match(inside):
            raise self._not_allowed(path, "it has a scheme of its own")
        if "\0" in inside or ".." in PurePosixPath(inside).parts:
            raise self._not_allowed(path, "it has '..' or NUL in it")
        if inside.startswith("/"):
            raise self._not_allowed(path, "it is absolute and elsewhere")
        return inside

    def _open_local(self, path: str, relative: str, head_bytes: int) -> Opened | None:
        """Open the file itself, so that no link on the way is followed after it was looked at."""
        try:
            real = os.path.realpath(os.path.join(self.real, relative), strict=True)  # noqa: PTH118
            kind = os.stat(real).st_mode  # noqa: PTH116
        except (FileNotFoundError, NotADirectoryError):
            raise self._not_found(path) from None
        except PermissionError as error:  # a folder on the way is closed
            raise explain(error, "read", os.path.join(self.real, relative)) from error  # noqa: PTH118
        except (OSError, ValueError) as error:  # a loop of links, a name too long
            raise self._not_allowed(path, f"it cannot be followed ({error})") from None
        if not real.startswith(f"{self.real.rstrip('/')}/"):
            raise self._not_allowed(path, "a link leads out")
        if not stat.S_ISREG(kind):
            raise self._not_allowed(path, "it is no file")
        return LocalStore(self.real).open_version(os.path.relpath(real, self.real), head_bytes)

    def _not_allowed(self, path: str, why: str) -> AudioError:
        return AudioError("path_not_allowed", f"path {path!r:.200}: {why}; expected a file in {self.url}")

    def _not_found(self, path: str) -> AudioError:
        return AudioError("not_found", f"path {path!r:.200}: no such file in {self.url}")
