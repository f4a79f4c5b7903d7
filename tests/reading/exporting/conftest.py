"""Labelled sinks, made once."""

from collections.abc import Callable
from pathlib import Path

import pytest

import raysp
from raysp.reading.exporting.result import Export
from tests.reading.exporting.sinks import make_sink


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> Path:
    """A folder with the source `in` and the sink `out` of two shards, with words, characters and a broken row."""
    folder = tmp_path_factory.mktemp("exports")
    make_sink(folder)
    return folder


@pytest.fixture
def export(made, tmp_path) -> Callable[..., Export]:
    """Function that exports the sink into the folder `dest`."""

    def run(to: str, **options: object) -> Export:
        return raysp.export(str(made / "out"), to=to, **{"dest": str(tmp_path / "dest"), **options})

    return run
