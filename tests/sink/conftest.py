"""The stores that the tests of the protocol run on: a folder and an object store."""

import uuid
from dataclasses import dataclass
from pathlib import Path

import pytest

from raysp.storage.store import Store
from raysp.storage.stores import open_store
from tests import s3_servers
from tests.clouds.cloud import CLOUDS
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


@pytest.fixture(scope="session")
def _buckets() -> dict[str, str]:
    return {}


@pytest.fixture(params=["local", f"s3-{s3_servers.kind()}", *CLOUDS])
def stores(request, tmp_path: Path, _buckets) -> Stores:
    if request.param == "local":
        return Stores(str(tmp_path), {})
    server = request.getfixturevalue(CLOUDS.get(request.param, "s3"))
    bucket = _buckets.setdefault(server.endpoint, "") or server.bucket()
    _buckets[server.endpoint] = bucket
    return Stores(server.url(bucket, uuid.uuid4().hex), server.options)


@pytest.fixture
def store(stores) -> Store:
    return stores.open()


IN_SHORT_ON_S3 = ("test_commit", "test_lease")
"""The others use an object store only as these do: their turn on it comes in the long runs."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave to the long runs what other tests show of an object store; those of several processes show it on S3.

    On the emulated clouds they run with the drivers, since they take long there.
    """
    for item in items:
        if Path(__file__).parent in item.path.parents:
            is_on = {one for one in ("s3-", *CLOUDS) if f"[{one}" in item.name}
            is_long = bool(is_on & {*CLOUDS})
            if is_on and (item.path.stem not in IN_SHORT_ON_S3 or (is_long and item.get_closest_marker("drivers"))):
                item.add_marker(pytest.mark.soak)
            elif is_long:
                item.add_marker(pytest.mark.drivers)
