from pathlib import Path

import pytest

from tests.specs.code.projects import Project


@pytest.fixture
def project(tmp_path: Path, monkeypatch) -> Project:
    """A folder of a user's modules, from which this process imports."""
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    return Project(folder)
