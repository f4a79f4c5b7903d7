import sys
from pathlib import Path

import pytest

from tests.specs.code.projects import Project


@pytest.fixture
def project(tmp_path: Path, monkeypatch) -> Project:
    """A folder of a user's modules, from which this process imports; what was imported is forgotten at the end."""
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    # A module that is written twice in a second, in one size, would be taken from the bytecode of the first.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = {*sys.modules}
    yield Project(folder)
    for name in {*sys.modules} - before:
        if str(tmp_path) in str(
            getattr(sys.modules[name], "__file__", None) or getattr(sys.modules[name], "__path__", "")
        ):
            del sys.modules[name]
