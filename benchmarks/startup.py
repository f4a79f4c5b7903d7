"""Time from a command to its answer: `import raysp`, the help text, and verbs on the bundled recordings.

    python -m benchmarks startup --repeats 5

Each command runs in a process of its own, one after the other in every repeat. The aims are for a quiet machine.
Then one process labels three rows as a try-out, and a corpus of one row into a sink of its own, each once before it is
measured: a notebook in which a pipeline is tried again and again.

Question of docs/evidence/performance.md, "Start-up and threads": how long does a user wait for an answer?
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from benchmarks.tables import show, write_json

if TYPE_CHECKING:
    import raysp

PIPELINE = Path(__file__).parents[1] / "pipelines" / "label_digits.py"
RAYSP = [sys.executable, "-m", "raysp"]
AIMS = {"import raysp": 0.3, "raysp --help": 0.5, "raysp status": 1.0, "raysp plan": 3.0}
"""Seconds of wall time that a command may take."""
WARM_CPU_AIM = 1.0
"""Seconds of CPU time that a try-out or a run of one row may take in a process that has labelled before."""


def commands(sink: Path) -> dict[str, list[str]]:
    """Return the commands by name. `sink` has all labels of the bundled recordings: `plan` finds nothing to do."""
    return {
        "python -c pass": [sys.executable, "-c", "pass"],
        "import raysp": [sys.executable, "-c", "import raysp"],
        "raysp --help": [*RAYSP, "--help"],
        "raysp status": [*RAYSP, "status", str(sink)],
        "raysp plan": [*RAYSP, "plan", *_pipeline(sink)],
    }


def _pipeline(sink: Path) -> list[str]:
    return [str(PIPELINE), "--set", f"sink.url={sink}"]


def measure(repeats: int) -> list[dict[str, object]]:
    """Time every command, interleaved."""
    with tempfile.TemporaryDirectory(prefix="raysp-bench-") as folder:
        sink = Path(folder) / "labels"
        _answer([*RAYSP, "run", *_pipeline(sink)])
        listed = commands(sink)
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in listed}
        for _ in range(repeats):
            for name, command in listed.items():
                taken[name].append(_answer(command))
    return [
        {
            "command": name,
            "least, s": round(min(wall for wall, _ in times), 2),
            "median, s": round(median(wall for wall, _ in times), 2),
            "CPU, s": round(min(cpu for _, cpu in times), 2),
            "aim, s": AIMS.get(name, ""),
        }
        for name, times in taken.items()
    ]


def measure_warm(repeats: int) -> list[dict[str, object]]:
    """Time a try-out of three rows and a run of one row in this process, interleaved, after one of each."""
    import pyarrow.parquet as pq

    import raysp
    from raysp.specs.work_files import load_pipeline

    pipeline = load_pipeline(str(PIPELINE))
    with tempfile.TemporaryDirectory(prefix="raysp-bench-") as folder:
        shard = min((PIPELINE.parent / "demo" / "audio").glob("*.parquet"))
        pq.write_table(pq.read_table(shard).slice(0, 1), f"{folder}/corpus.parquet")
        one_row = replace(pipeline, source=replace(pipeline.source, url=f"{folder}/corpus.parquet"))
        taken: dict[str, list[tuple[float, float]]] = {"try-out of three rows": [], "run of one row": []}
        for number in range(repeats + 1):
            sink = raysp.Parquet(f"{folder}/labels-{number}")
            work = (partial(_try_out, pipeline), partial(_run, replace(one_row, sink=sink)))
            for times, label in zip(taken.values(), work, strict=True):
                before, started = os.times(), time.perf_counter()
                label()
                times.append((time.perf_counter() - started, _cpu(os.times()) - _cpu(before)))
    return [
        {
            "in a warm process": name,
            "least, s": round(min(wall for wall, _ in times[1:]), 2),
            "median, s": round(median(wall for wall, _ in times[1:]), 2),
            "most CPU, s": round(max(cpu for _, cpu in times[1:]), 2),
            "aim of CPU, s": WARM_CPU_AIM,
        }
        for name, times in taken.items()
    ]


def _try_out(pipeline: "raysp.Pipeline") -> None:
    import raysp

    raysp.run(pipeline, rows=3, engine="here", progress=False)


def _run(pipeline: "raysp.Pipeline") -> None:
    import raysp

    raysp.run(pipeline, engine="here", progress=False)


def _cpu(times: os.times_result) -> float:
    return times.user + times.system + times.children_user + times.children_system


def _answer(command: list[str]) -> tuple[float, float]:
    """Run a command; return its wall and CPU seconds."""
    before, started = os.times(), time.perf_counter()
    ended = subprocess.run(command, capture_output=True, text=True)
    wall, after = time.perf_counter() - started, os.times()
    if ended.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {ended.returncode}:\n{ended.stderr}")
    return wall, _cpu(after) - _cpu(before)


def main(argv: list[str] | None = None) -> None:
    """Measure from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks startup", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5, help="times that each command runs")
    parser.add_argument("--json", type=Path, help="JSON file for the results")
    args = parser.parse_args(argv)
    found = measure(args.repeats)
    show("From a command to its answer", found)
    warm = measure_warm(args.repeats)
    show("In a process that has labelled before", warm)
    if args.json:
        write_json(args.json, {"commands": found, "warm": warm})


if __name__ == "__main__":
    main()
