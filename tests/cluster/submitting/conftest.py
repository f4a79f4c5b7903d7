"""A pipeline file in a folder of its own, and a stand-in for the head of a cluster."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cluster.submitting.fake_head import FakeHead
from tests.corpora import CHECKPOINT
from tests.kit import run

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
SUBMITTED = "label_speech.py"


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
    file = folder / SUBMITTED
    file.write_text(PIPELINE.format(**given | places))
    return file


@pytest.fixture(autouse=True)
def _no_cluster_of_the_environment(monkeypatch) -> None:
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_JOB_HEADERS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def head() -> Iterator[FakeHead]:
    with FakeHead().serving() as serving:
        yield serving


@pytest.fixture
def submitted(head: FakeHead) -> Callable[..., dict[str, object]]:
    """A function that submits a file, or that of a folder, alone, and returns the job."""

    def submitted(file: Path, *options: object) -> dict[str, object]:
        head.jobs.clear()
        head.packages.clear()
        file = file / SUBMITTED if file.is_dir() else file
        ran = run(["submit", file, "--address", head.url, "--detach", *options])
        assert ran.code == 0, ran.err
        return {**head.submitted(), "said": ran.err}

    return submitted


@pytest.fixture
def refusal(head: FakeHead) -> Callable[..., str]:
    """A function that submits a file, or that of a folder, and returns why it is refused."""

    def refused(file: Path, *options: object) -> str:
        jobs, packages = dict(head.jobs), dict(head.packages)
        file = file / SUBMITTED if file.is_dir() else file
        ran = run(["submit", file, "--address", head.url, "--detach", *options])
        assert (ran.code, head.jobs, head.packages) == (2, jobs, packages)
        return ran.err.removeprefix("raysp: ")

    return refused
