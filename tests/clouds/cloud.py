"""An emulated object store of Google Cloud or Azure, as the tests use it."""

import socket
import time
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

CLOUDS = {"gs": "gcs_server", "az": "azure_server"}
"""Fixtures of the emulators by scheme, which stand for them in parameters of tests."""


@dataclass(frozen=True)
class Cloud(ABC):
    """Where an emulator is, and plain requests past raysp."""

    endpoint: str

    scheme = ""
    kind = ""
    secret = ""

    @property
    @abstractmethod
    def options(self) -> dict[str, object]:
        """Storage options, the secret by name."""

    @abstractmethod
    def bucket(self) -> str:
        """Make a bucket of its own."""

    @abstractmethod
    def put(self, bucket: str, key: str, data: bytes) -> None:
        """Write an object."""

    @abstractmethod
    def get_all(self, bucket: str) -> dict[str, bytes]:
        """Return the objects of a bucket by key."""

    @abstractmethod
    def marks(self, bucket: str, prefix: str) -> dict[str, object]:
        """Return by key what changes with every write of an object, even of the same bytes."""

    def url(self, bucket: str, path: str = "") -> str:
        return f"{self.scheme}://{bucket}/{path}".rstrip("/")

    def upload(self, folder: Path, bucket: str, prefix: str = "") -> None:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                self.put(bucket, f"{prefix}{file.relative_to(folder).as_posix()}", file.read_bytes())

    def download(self, bucket: str, folder: Path) -> dict[str, bytes]:
        """Bring all that is in a bucket into a folder, and return it by key."""
        found = self.get_all(bucket)
        for key, data in found.items():
            (folder / key).parent.mkdir(parents=True, exist_ok=True)
            (folder / key).write_bytes(data)
        return found

    def at(self, endpoint: str) -> "Cloud":
        """The same, reached by another way."""
        return replace(self, endpoint=endpoint)


def wait_for(url: str, lives: Callable[[], bool], seconds: float) -> None:
    """Wait until a process that lives answers at a url."""
    end = time.monotonic() + seconds
    while True:
        try:
            urllib.request.urlopen(url, timeout=2).close()
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            if time.monotonic() > end or not lives():
                raise
            time.sleep(0.1)


def free_port() -> int:
    """Find a port that nothing listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
