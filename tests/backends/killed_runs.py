"""Runs that a fault kills, and the runs that continue them."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import raysp
from raysp.specs.work_files import load_pipeline
from tests.backends.runs import write_corpus
from tests.here import run_without_ray
from tests.runs import read_labels

PIPELINE = """
import raysp
pipeline = raysp.Pipeline(
    source=raysp.Shards({folder!r} + "/in"),
    steps=[raysp.Decode(), raysp.Label({checkpoint!r}, window_seconds=2, overlap_seconds=0.5, {options})],
    sink=raysp.Parquet({folder!r} + "/" + {sink!r}),
)
"""


def write_pipeline(folder: Path, checkpoint: Path, options: str, sink: str) -> Path:
    """Write a pipeline file over what `write_corpus` wrote."""
    file = folder / f"{sink}.py"
    file.write_text(PIPELINE.format(folder=str(folder), checkpoint=str(checkpoint), options=options, sink=sink))
    return file


def run_and_kill(file: Path, moment: str) -> None:
    """Run a pipeline file in one process beside its driver, and kill it at a value of RAYSP_FAIL_AT."""
    passings = file.parent / "passings"
    passings.mkdir()
    at = {"RAYSP_FAIL_AT": moment, "RAYSP_FAIL_FOLDER": str(passings), "RAY_ADDRESS": ""}
    command = [sys.executable, "-m", "raysp.cli", "run", str(file)]
    killed = subprocess.run(command, env={**os.environ, **at}, capture_output=True, text=True, timeout=300)
    assert killed.returncode == -signal.SIGKILL, killed.stderr


def run_to_the_end(file: Path) -> None:
    """Run a pipeline file in this process, whatever is left to do: another one would import all again."""
    with pytest.MonkeyPatch.context() as patched:
        run_without_ray(patched)
        done = raysp.run(load_pipeline(str(file)), progress=False)
    assert (done.exit_code, done.shards_committed) == (0, done.shards)


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
    files = [write_pipeline(folder, checkpoint, options, sink) for sink in ("killed", "whole")]
    run_and_kill(files[0], moment)
    committed = {path.name: path.stat().st_mtime_ns for path in (folder / "killed").glob("*.parquet")}
    assert len(committed) == (1 if moment.startswith("after_shard") else 0)
    for file in files:
        run_to_the_end(file)
    assert {name: (folder / "killed" / name).stat().st_mtime_ns for name in committed} == committed
    found, expected = (read_labels(folder / name).to_pylist() for name in ("killed", "whole"))
    assert found == expected
    assert len(found) == 12
    assert raysp.verify(str(folder / "killed"), sample=4, trust=True).differences == ()
    return found
