"""The folder that the tests of the protocol run on; that stores do as it does is shown by `tests/storage`."""

from pathlib import Path

import pytest

from raysp.storage.store import LocalStore


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "labels")
