"""Places that tests of whole runs read from and label into, whatever store those are on: a folder, or a bucket."""

import uuid
from dataclasses import dataclass, field
from pathlib import Path

import raysp
from tests.clouds.cloud import Cloud
from tests.s3_servers import S3Server


@dataclass
class Folder:
    """A folder of this machine."""

    path: Path
    options: dict[str, object] = field(default_factory=dict)

    def url(self, name: str) -> str:
        return str(self.path / name)

    def put(self, folder: Path, name: str) -> None:
        """Bring the files of a folder there."""
        (self.path / name).symlink_to(folder)

    def copy(self, name: str) -> Path:
        """Give a folder with all that is there now, hidden files included."""
        return self.path / name

    def writes(self, name: str) -> dict[str, object]:
        """Tell the label shards that can be seen, each with what changes whenever it is written."""
        return {path.name: path.stat().st_mtime_ns for path in (self.path / name).glob("*.parquet")}


@dataclass
class Bucket:
    """A bucket of an object store, and a folder to look at copies of it in."""

    server: S3Server | Cloud
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
        found = self.server.marks(self.name, f"{name}/")
        paths = {key.removeprefix(f"{name}/"): mark for key, mark in found.items()}
        return {path: mark for path, mark in paths.items() if not path.startswith(".raysp/")}


Place = Folder | Bucket


def options_code(options: dict[str, object]) -> str:
    """Write storage options as they stand in a pipeline file."""
    values = (f"{key!r}: {_code(value)}" for key, value in options.items())
    return f"{{{', '.join(values)}}}"


def _code(value: object) -> str:
    return f"raysp.Env({value.name!r})" if isinstance(value, raysp.Env) else repr(value)
