"""The layouts of the table, served as a hub serves them."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import hub_server
from tests.here import run_without_ray
from tests.published.building import lay_out
from tests.published.table import TABLE


@pytest.fixture(scope="session")
def laid_out(tmp_path_factory) -> Callable[[str], Path]:
    """Write the layout of a name once, and return its folder."""
    root = tmp_path_factory.mktemp("published")

    def folder(name: str) -> Path:
        if not (path := root / name).is_dir():
            path.mkdir(parents=True)
            lay_out(TABLE[name], path)
        return path

    return folder


@pytest.fixture(scope="session")
def server() -> Iterator[hub_server.HubServer]:
    with hub_server.serving() as serving:
        yield serving


@pytest.fixture
def hub(server, laid_out, tmp_path, monkeypatch) -> Callable[[str], str]:
    """Serve the layout of a name, and return the name. Runs are in this process, which alone knows this hub."""
    run_without_ray(monkeypatch)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    hub_server.use_cache(monkeypatch, tmp_path / "hub", server.url)

    def serve(name: str) -> str:
        hub_id, _, revision = name.partition("@")
        server.push(hub_id, laid_out(name), hashlib.sha1(name.encode()).hexdigest(), revision or "main")
        return name

    return serve
