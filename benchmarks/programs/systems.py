"""The systems S0 to S4 as commands: what they are called with, and the labels that they write."""

import glob
import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from benchmarks.programs import processes

REPOSITORY = Path(__file__).parents[2]
PROGRAMS = {"S1": "transformers_pipeline", "S2": "sorted_loop", "S3": "ray_data"}


def bare(checkpoint: Path, shards: str, **options: object) -> tuple[list[dict[str, Any]], processes.Watched]:
    """Run S0. Returns the figures and texts of each library and budget."""
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        command = [sys.executable, "-m", "benchmarks.programs.bare", str(checkpoint), shards, file.name]
        watched = watch([*command, *(f"--{name}={value}" for name, value in options.items())])
        return json.loads(Path(file.name).read_text()), watched


def program_command(system: str, checkpoint: Path, shards: str, folder: Path, dtype: str = "float32") -> list[str]:
    """Return the command of one of `PROGRAMS`."""
    module = f"benchmarks.programs.{PROGRAMS[system]}"
    return [sys.executable, "-m", module, str(checkpoint), shards, str(folder), dtype]


def run_command(checkpoint: Path, shards: str, sink: Path, settings: Sequence[str] = ()) -> list[str]:
    """Return the command of S4."""
    pipeline = REPOSITORY / "pipelines" / "label_digits.py"
    changes = [f"source.url={shards}", f"steps.1.checkpoint={checkpoint}", f"sink.url={sink}", *settings]
    options = [word for change in changes for word in ("--set", change)]
    return [sys.executable, "-m", "raysp", "run", str(pipeline), "--json", *options]


def environment() -> dict[str, str]:
    """Return the environment of a job: without OMP_NUM_THREADS, a limit that no user of a whole machine has."""
    return {name: value for name, value in os.environ.items() if name not in ("RAY_ADDRESS", "OMP_NUM_THREADS")}


def watch(command: Sequence[str]) -> processes.Watched:
    """Run a command to its end; one that fails ends the measurement."""
    watched = processes.run(command, environment(), folder=REPOSITORY)
    if watched.code:
        raise SystemExit(f"{' '.join(command)} ended with exit code {watched.code}: {watched.stderr[-2000:]}")
    return watched


def column(shards: str, name: str) -> dict[str, str]:
    """Read a column of shards, by id."""
    found: dict[str, str] = {}
    for file in sorted(glob.glob(shards)):
        table = pq.read_table(file, columns=["id", name])
        found |= dict(zip(table["id"].to_pylist(), table[name].to_pylist(), strict=True))
    return found


def program_texts(folder: Path) -> dict[str, str]:
    """Read the labels of a program by id; the windows of a recording, where they are rows, are joined by spaces."""
    parts: dict[str, dict[int, str]] = {}
    for name in sorted(folder.glob("*.parquet")):
        for row in pq.read_table(name).to_pylist():
            parts.setdefault(row["id"], {})[row.get("number", 0)] = row["text"]
    return {name: " ".join(filter(None, (of[i] for i in sorted(of)))) for name, of in parts.items()}


def pieces(sink: Path) -> list[Mapping[str, Any]]:
    """Read the receipts of the pieces of a sink."""
    files = sorted((sink / ".raysp" / "log").glob("*.jsonl"))
    receipts = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    return [receipt for receipt in receipts if receipt["kind"] == "piece"]
