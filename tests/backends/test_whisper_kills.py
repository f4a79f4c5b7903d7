"""Runs of Whisper by CTranslate2 whose processes are killed: the next run continues, with the labels of one run."""

import os
import signal
import subprocess
import sys

import pyarrow.parquet as pq
import pytest

import raysp
from tests.backends.runs import write_corpus
from tests.backends.theirs import tiny_whisper
from tests.runs import read_labels

pytestmark = [pytest.mark.drivers, pytest.mark.slow]

PIPELINE = """
import raysp
pipeline = raysp.Pipeline(
    source=raysp.Shards({folder!r} + "/in"),
    steps=[
        raysp.Decode(),
        raysp.Label(
            {checkpoint!r},
            backend="ctranslate2", dtype="int8", window_seconds=2, overlap_seconds=0.5,
            outputs=[raysp.Transcript(words=True)],
        ),
    ],
    sink=raysp.Parquet({folder!r} + "/" + {sink!r}),
)
"""


def run(folder, checkpoint, sink, **variables):
    file = folder / f"{sink}.py"
    file.write_text(PIPELINE.format(folder=str(folder), checkpoint=str(checkpoint), sink=sink))
    return subprocess.run(
        [sys.executable, "-m", "raysp.cli", "run", str(file)],
        env={**os.environ, "RAY_ADDRESS": "", **variables},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.parametrize("moment", ["before_block_staged:2", "after_shard_committed:1"])
def test_a_killed_run_continues_to_the_labels_of_an_undisturbed_one(tmp_path, moment):
    write_corpus(tmp_path)
    table = pq.read_table(tmp_path / "in" / "a.parquet")
    for name in "bc":
        pq.write_table(table, tmp_path / "in" / f"{name}.parquet")
    checkpoint = tiny_whisper(tmp_path / "whisper", multilingual=False)  # converted by the first run
    killed = run(tmp_path, checkpoint, "killed", RAYSP_FAIL_AT=moment, RAYSP_FAIL_FOLDER=str(_folder(tmp_path)))
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    committed = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "killed").glob("*.parquet")}
    assert len(committed) == (1 if moment.startswith("after_shard") else 0)
    again = run(tmp_path, checkpoint, "killed")
    assert again.returncode == 0, again.stderr
    assert {name: (tmp_path / "killed" / name).stat().st_mtime_ns for name in committed} == committed
    whole = run(tmp_path, checkpoint, "whole")
    assert whole.returncode == 0, whole.stderr
    found, expected = (read_labels(tmp_path / name).to_pylist() for name in ("killed", "whole"))
    assert found == expected
    assert len(found) == 12
    assert raysp.verify(str(tmp_path / "killed"), sample=4).differences == ()


def _folder(tmp_path):
    folder = tmp_path / "passings"
    folder.mkdir()
    return folder
