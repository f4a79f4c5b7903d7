from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.models.oracles import save_checkpoint


@pytest.fixture(scope="session")
def uncollected() -> Iterator[None]:
    """Trainers that do not collect the garbage of the whole process, which takes longer than their training."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("accelerate.utils.memory.clear_device_cache", lambda **_: None)
        yield


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    """A whole small CTC checkpoint as transformers saves it."""
    return save_checkpoint(tmp_path / "checkpoint")
