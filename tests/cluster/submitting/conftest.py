"""A pipeline file in a folder of its own, and a stand-in for the head of a cluster."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.submitting.fake_head import FakeHead
from tests.corpora import CHECKPOINT

PIPELINE = """
import raysp
import helper

pipeline = raysp.Pipeline(
    source=raysp.Shards({source!r}),
    steps=[
        raysp.Keep(where="helper:is_wanted"),
        raysp.Decode(),
        raysp.Label({checkpoint!r}, outputs=[raysp.Transcript()]),
    ],
    sink=raysp.Parquet({sink!r}),
)
"""
HELPER = "def is_wanted(rows):\n    return [True] * rows.num_rows\n"


@pytest.fixture
def project(tmp_path) -> Path:
    """A pipeline file with a module beside it; recordings, labels and checkpoint are elsewhere."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "helper.py").write_text(HELPER)
    write_pipeline(folder)
    return folder


def write_pipeline(folder: Path, **places: str) -> Path:
    given = {"source": "s3://bucket/in/*.parquet", "sink": "s3://bucket/labels", "checkpoint": str(CHECKPOINT)}
    file = folder / "label_speech.py"
    file.write_text(PIPELINE.format(**given | places))
    return file


@pytest.fixture(autouse=True)
def _import_paths_undone(monkeypatch) -> None:
    """Each test imports the module beside its own pipeline file."""
    import sys

    monkeypatch.setattr(sys, "path", [*sys.path])


@pytest.fixture(autouse=True)
def _no_cluster_of_the_environment(monkeypatch) -> None:
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_JOB_HEADERS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def head() -> Iterator[FakeHead]:
    with FakeHead().serving() as serving:
        yield serving
