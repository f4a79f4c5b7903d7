"""Places that tests of whole runs read from and label into: a folder, or a bucket of an object store."""

import uuid
from dataclasses import dataclass, field
from pathlib import Path

from tests.clouds.cloud import Cloud


@dataclass
class Folder:
    """A folder of this machine."""

    path: Path
    options: dict[str, object] = field(default_factory=dict)

    def url(self, name: str) -> str:
        return str(self.path / name)

    def put(self, folder: Path, name: str) -> None:
        """Make the files of a folder available at this name."""
        (self.path / name).symlink_to(folder)

    def copy(self, name: str) -> Path:
        """Return a folder with all present files, hidden ones included."""
        return self.path / name

    def writes(self, name: str) -> dict[str, object]:
        """Return the visible label shards, each with a value that changes at every write."""
        return {path.name: path.stat().st_mtime_ns for path in (self.path / name).glob("*.parquet")}


@dataclass
class Bucket:
    """A bucket of an object store, and a local folder for copies of it."""

    server: Cloud
    name: str
    scratch: Path

    @property
    def options(self) -> dict[str, object]:
        return self.server.options

    def url(self, name: str) -> str:
        return self.server.url(self.name, name)

    def put(self, folder: Path, name: str) -> None:
        self.server.upload(folder, self.name, f"{name}/")

    def copy(self, name: str) -> Path:
        place = self.scratch / uuid.uuid4().hex
        self.server.download(self.name, place)
        return place / name

    def writes(self, name: str) -> dict[str, object]:
        marks = self.server.marks(self.name, f"{name}/")
        paths = {key.removeprefix(f"{name}/"): mark for key, mark in marks.items()}
        return {path: mark for path, mark in paths.items() if not path.startswith(".raysp/")}


Place = Folder | Bucket
