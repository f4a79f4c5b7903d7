"""Clips of large corpora: one decoder process, a bound of time, and the same files however they are made."""

import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import raysp
from tests.kit import CHECKOUT, CHECKPOINT, DEMO, corpus

CPU_SECONDS = 4.0
"""CPU time of the export of the 300 clips of the demo, with that of its processes."""
LOGGING = """
import os, sys
with open({log!r}, "a") as file:
    file.write(" ".join(sys.orig_argv) + "\\n")
"""


def label(source: raysp.Shards, sink: Path) -> Path:
    outputs = [raysp.Transcript(words=True)]
    steps = [raysp.Decode(), raysp.Label(str(CHECKPOINT), outputs=outputs)]
    place = raysp.Parquet(str(sink), keep=["speaker_id"])
    raysp.run(raysp.Pipeline(source, steps=steps, sink=place), engine="here", progress=False)
    return sink


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> Path:
    """Labels of the demo: two label shards of 150 recordings each."""
    return label(raysp.Shards(f"{DEMO}/audio/*.parquet"), tmp_path_factory.mktemp("demo") / "labels")


@pytest.fixture(scope="module")
def sink(tmp_path_factory) -> Path:
    """Labels of four shards of six recordings."""
    folder = tmp_path_factory.mktemp("four")
    return label(raysp.Shards(corpus(folder / "in", rows=24, shards=4).url), folder / "labels")


def exported(
    sink: Path, dest: Path, *options: str, log: Path | None = None
) -> tuple[subprocess.CompletedProcess[bytes], float]:
    """Export clips by the command, and return it with the CPU time of all its processes.

    Args:
        sink: the sink.
        dest: the destination.
        options: further words of the command.
        log: file that gets the command line of each Python process.
    """
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    if log:
        (log.parent / "sitecustomize.py").write_text(LOGGING.format(log=str(log)))
        environment["PYTHONPATH"] += f"{os.pathsep}{log.parent}"
    line = ["export", str(sink), str(dest), "--to", "clips", "--trust", "--set", "to.min_seconds=0.1", *options]
    before = os.times()
    done = subprocess.run([sys.executable, "-m", "raysp", *line], env=environment, capture_output=True, timeout=300)
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return done, used


def files_of(folder: Path) -> dict[str, bytes]:
    """Return the files of an export for its readers, by their paths."""
    paths = (path for path in folder.rglob("*") if path.is_file() and ".raysp" not in path.parts)
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def clips_of(folder: Path) -> list[dict[str, object]]:
    return [row for path in sorted((folder / "data").rglob("*.parquet")) for row in pq.read_table(path).to_pylist()]


@pytest.mark.slow
def test_the_demo_starts_one_decoder_and_takes_few_seconds(demo, tmp_path):
    (tmp_path / "site").mkdir()
    log = tmp_path / "site" / "log"
    done, seconds = exported(demo, tmp_path / "clips", log=log)
    assert done.returncode == 0, done.stderr.decode()
    assert len(clips_of(tmp_path / "clips")) == 300
    started = log.read_text().splitlines()
    assert sum("raysp.audio.child" in line for line in started) == 1
    assert seconds < CPU_SECONDS
