"""Time from a command to its answer: `import raysp`, the help text, and verbs on the bundled recordings.

    python -m benchmarks startup --repeats 5

Each command runs in a process of its own, one after the other in every repeat. The aims are for a quiet machine.

Question of docs/evidence/performance.md, "Start-up and threads": how long does a user wait for an answer?
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from benchmarks.tables import show, write_json

PIPELINE = Path(__file__).parents[1] / "pipelines" / "label_digits.py"
RAYSP = [sys.executable, "-m", "raysp"]
AIMS = {"import raysp": 0.3, "raysp --help": 0.5, "raysp status": 1.0, "raysp plan": 3.0}
"""Seconds of wall time that a command may take."""


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


def _answer(command: list[str]) -> tuple[float, float]:
    """Run a command; return its wall and CPU seconds."""
    before, started = os.times(), time.perf_counter()
    ended = subprocess.run(command, capture_output=True, text=True)
    wall, after = time.perf_counter() - started, os.times()
    if ended.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {ended.returncode}:\n{ended.stderr}")
    return wall, (after.children_user - before.children_user) + (after.children_system - before.children_system)


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
    if args.json:
        write_json(args.json, found)


if __name__ == "__main__":
    main()
