"""The stores that the tests of the protocol run on: a folder and an object store."""

import uuid
from dataclasses import dataclass
from pathlib import Path

import pytest

from raysp.storage.store import Store
from raysp.storage.stores import open_store
from tests import s3_servers
from tests.places import options_code


@dataclass(frozen=True)
class Stores:
    """Stores of one kind, by name; each is empty at first and may be opened as often as need be."""

    root: str
    options: dict[str, object]

    def open(self, name: str = "labels") -> Store:
        return open_store(f"{self.root}/{name}", self.options)

    def code(self, name: str = "labels") -> str:
        """Write down, for another process that has imported raysp, how to open one."""
        return f"raysp.storage.stores.open_store({f'{self.root}/{name}'!r}, {options_code(self.options)})"


@pytest.fixture(params=["local", f"s3-{s3_servers.kind()}"])
def stores(request, tmp_path: Path) -> Stores:
    """A folder, or a folder of a bucket. That other clouds do as these do is shown by `tests/storage`."""
    if request.param == "local":
        return Stores(str(tmp_path), {})
    server = request.getfixturevalue("s3")
    return Stores(server.url(server.bucket(), uuid.uuid4().hex), server.options)


@pytest.fixture
def store(stores) -> Store:
    return stores.open()
