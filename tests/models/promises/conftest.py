import pytest


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A folder to run a page in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
