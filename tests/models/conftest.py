from pathlib import Path

import pytest

from tests.models.oracles import save_checkpoint


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    """A whole small CTC checkpoint as transformers saves it."""
    return save_checkpoint(tmp_path / "checkpoint")
