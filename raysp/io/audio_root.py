"""The one place below which recordings may be read by a path that a stranger wrote."""

import os
import stat
from collections.abc import Mapping
from pathlib import PurePosixPath

import pyarrow as pa

from raysp.errors import AudioError, StoreError
from raysp.io.store import SCHEME, LocalStore, open_store


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

    def open(self, path: str) -> pa.NativeFile:
        """Open a recording for ranged reads.

        Args:
            path: relative to the root; or absolute, inside it.

        Raises:
            AudioError: `path_not_allowed` or `not_found`.
            StoreError: the storage fails.
        """
        if self.url.startswith(("http://", "https://")):
            raise self._not_allowed(path, "a web server may lead anywhere, also to private addresses")
        relative = self._inside(path)
        if self.real:
            return self._open_local(path, relative)
        if self.store.stat(relative) is None:
            raise self._not_found(path)
        return self.store.open(relative)

    def _inside(self, path: str) -> str:
        """Give the path relative to the root, from its letters alone."""
        inside = path.removeprefix(f"{self.url}/")
        if SCHEME.match(inside):
            raise self._not_allowed(path, "it has a scheme of its own")
        if "\0" in inside or ".." in PurePosixPath(inside).parts:
            raise self._not_allowed(path, "it has '..' or NUL in it")
        if inside.startswith("/"):
            raise self._not_allowed(path, "it is absolute and elsewhere")
        return inside

    def _open_local(self, path: str, relative: str) -> pa.NativeFile:
        """Open the file itself, so that no link on the way is followed after it was looked at."""
        try:
            real = os.path.realpath(os.path.join(self.real, relative), strict=True)  # noqa: PTH118
            kind = os.stat(real).st_mode  # noqa: PTH116
        except (FileNotFoundError, NotADirectoryError):
            raise self._not_found(path) from None
        except (OSError, ValueError) as error:  # a loop of links, a name too long, a folder that is closed
            raise self._not_allowed(path, f"it cannot be followed ({error})") from None
        if not real.startswith(f"{self.real.rstrip('/')}/"):
            raise self._not_allowed(path, "a link leads out")
        if not stat.S_ISREG(kind):
            raise self._not_allowed(path, "it is no file")
        try:
            return LocalStore(self.real).open(os.path.relpath(real, self.real))
        except StoreError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                raise self._not_found(path) from None
            raise

    def _not_allowed(self, path: str, why: str) -> AudioError:
        return AudioError("path_not_allowed", f"path {path!r:.200}: {why}; expected a file in {self.url}")

    def _not_found(self, path: str) -> AudioError:
        return AudioError("not_found", f"path {path!r:.200}: no such file in {self.url}")
