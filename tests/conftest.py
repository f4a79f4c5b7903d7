import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real recordings and checkpoints, beside the repository or where RAYSP_SHARED says."""
    folder = Path(os.environ.get("RAYSP_SHARED") or Path(__file__).parents[2] / "shared")
    if not (folder / "data").is_dir():
        pytest.skip(f"no shared data at {folder} (set RAYSP_SHARED)")
    return folder
