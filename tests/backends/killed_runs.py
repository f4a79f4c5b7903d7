"""Runs that a fault kills, and the runs that continue them."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq

import raysp
from tests.backends.runs import write_corpus
from tests.runs import read_labels

PIPELINE = """
import raysp
pipeline = raysp.Pipeline(
    source=raysp.Shards({folder!r} + "/in"),
    steps=[raysp.Decode(), raysp.Label({checkpoint!r}, window_seconds=2, overlap_seconds=0.5, {options})],
    sink=raysp.Parquet({folder!r} + "/" + {sink!r}),
)
"""


def run(folder: Path, checkpoint: Path, options: str, sink: str, **variables: str) -> subprocess.CompletedProcess:
    """Label what `write_corpus` wrote, in one process."""
    file = folder / f"{sink}.py"
    file.write_text(PIPELINE.format(folder=str(folder), checkpoint=str(checkpoint), options=options, sink=sink))
    return subprocess.run(
        [sys.executable, "-m", "raysp.cli", "run", str(file)],
        env={**os.environ, "RAY_ADDRESS": "", **variables},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def check_killed(folder: Path, checkpoint: Path, options: str, moment: str) -> list[dict]:
    """Kill a run over three shards at a moment, run it again, and hold its rows to those of another run.

    Args:
        folder: for the corpus and two sinks.
        checkpoint: that of the label step.
        options: further arguments of the label step.
        moment: value of RAYSP_FAIL_AT.

    Returns:
        The rows.
    """
    write_corpus(folder)
    table = pq.read_table(folder / "in" / "a.parquet")
    for name in "bc":
        pq.write_table(table, folder / "in" / f"{name}.parquet")
    (folder / "passings").mkdir()
    at = {"RAYSP_FAIL_AT": moment, "RAYSP_FAIL_FOLDER": str(folder / "passings")}
    killed = run(folder, checkpoint, options, "killed", **at)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    committed = {path.name: path.stat().st_mtime_ns for path in (folder / "killed").glob("*.parquet")}
    assert len(committed) == (1 if moment.startswith("after_shard") else 0)
    for sink in ("killed", "whole"):
        done = run(folder, checkpoint, options, sink)
        assert done.returncode == 0, done.stderr
    assert {name: (folder / "killed" / name).stat().st_mtime_ns for name in committed} == committed
    found, expected = (read_labels(folder / name).to_pylist() for name in ("killed", "whole"))
    assert found == expected
    assert len(found) == 12
    assert raysp.verify(str(folder / "killed"), sample=4).differences == ()
    return found
