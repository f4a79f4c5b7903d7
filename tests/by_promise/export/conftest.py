"""Labelled sinks, made once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.by_promise.export.sinks import make_long_sink, make_manifest_sink, make_sink
from tests.exports import export_to


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> Path:
    """A folder with the source `in` and the sink `out` of two shards, with words, characters and a broken row."""
    folder = tmp_path_factory.mktemp("exports")
    make_sink(folder)
    return folder


@pytest.fixture(scope="session")
def long(tmp_path_factory) -> Path:
    """A folder with the source `in` and the sink `out` of three recordings of several words."""
    folder = tmp_path_factory.mktemp("long")
    make_long_sink(folder)
    return folder


@pytest.fixture(scope="session")
def manifest(tmp_path_factory) -> Path:
    """A folder with a manifest of a file and of excerpts of another, and the sink `out`."""
    folder = tmp_path_factory.mktemp("manifest")
    make_manifest_sink(folder)
    return folder


@pytest.fixture
def export(made, tmp_path) -> Callable[..., Any]:
    """Function that exports the sink into the folder `dest`."""

    def run(to: str, **options: object) -> Any:
        return export_to(to, str(made / "out"), **{"dest": str(tmp_path / "dest"), **options})

    return run
