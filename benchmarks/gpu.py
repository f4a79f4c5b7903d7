"""All GPU tests and figures in one command, in less than ten minutes, with one JSON file: `make gpu`.

    python -m benchmarks gpu --json gpu.json

Runs the tests marked `gpu`. Then a model of published size is measured alone (S0) in three precisions, and whole
runs (S4) against it. A part that fails or exceeds its time is recorded as such, and the others still run.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import checkpoints, corpus
from benchmarks.tables import show, write_json

MINUTES = 30.0
SHARDS = 4
DTYPES = ("float32", "bfloat16", "float16")
BUDGETS = "60,240,960"
"""Padded seconds of a batch: a GPU needs larger ones than a CPU."""
REPOSITORY = Path(__file__).parent.parent
NO_GPU = "no CUDA device found: nothing was measured. Run `make gpu` on a machine with one"


@dataclass(frozen=True)
class Part:
    """One command."""

    name: str
    command: Sequence[str]
    seconds: float
    """Time limit."""


def parts(checkpoint: Path, shards: str, device: str, repeats: int, minutes: float) -> list[Part]:
    """Return the commands, in order; each writes its figures to the file named after it."""
    bench = [sys.executable, "-m", "benchmarks"]
    on_device = ["--device", device, "--repeats", str(repeats)]
    found = [Part("tests", [sys.executable, "-m", "pytest", "-m", "gpu", "-rs", "-q"], 150)]
    for dtype in DTYPES if device == "cuda" else DTYPES[:2]:
        command = [*bench, "bare", str(checkpoint), shards, "--dtype", dtype, *on_device]
        found.append(Part(f"bare {dtype}", [*command, "--libraries", "raysp,transformers", "--budgets", BUDGETS], 90))
    throughput = [*bench, "throughput", "--checkpoints", str(checkpoint), "--corpora", "test-like", *on_device]
    throughput += ["--minutes", str(minutes), "--shards", str(SHARDS), "--libraries", "raysp", "--budgets", BUDGETS]
    return [*found, Part("throughput", throughput, 180)]


def run(part: Part, folder: Path) -> dict[str, object]:
    """Run a part, and return its output, figures and end."""
    file = folder / f"{part.name.replace(' ', '-')}.json"
    writes_json = part.name != "tests"
    command = [*part.command, *(["--json", str(file)] if writes_json else [])]
    started = time.monotonic()
    try:
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=part.seconds)
        ended = "done" if done.returncode == 0 else f"exit code {done.returncode}"
        output = (done.stdout + done.stderr).splitlines()
    except subprocess.TimeoutExpired:
        ended, output = f"not done in {part.seconds:g} s", []
    print(f"{part.name}: {ended}, {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    figures = json.loads(file.read_text()) if writes_json and file.exists() else None
    return {"ended": ended, "seconds": round(time.monotonic() - started, 1), "figures": figures, "output": output[-40:]}


def describe(device: str) -> Mapping[str, object]:
    """Return the names and versions on which the results depend."""
    import torch

    import raysp

    found: dict[str, object] = {"raysp": raysp.__version__, "torch": torch.__version__, "device": device}
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        found |= {
            "gpu": properties.name,
            "gpu_gigabytes": round(properties.total_memory / 1e9, 1),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        }
    return found


def measure(device: str, minutes: float, repeats: int) -> dict[str, object]:
    """Run all parts, and return their results by name."""
    found: dict[str, object] = dict(describe(device))
    with tempfile.TemporaryDirectory(prefix="raysp-gpu-") as work:
        folder = Path(work)
        checkpoint = checkpoints.make(folder / "base")
        corpus.build(folder / "corpus", "test-like", minutes=minutes, seed=0, shards=SHARDS)
        done = {
            part.name: run(part, folder)
            for part in parts(checkpoint, f"{folder}/corpus/*.parquet", device, repeats, minutes)
        }
    for name, part in done.items():
        if part["ended"] != "done":
            print("\n".join([f"\n{name}:", *part["output"]]))  # type: ignore[misc]
    show(
        f"{found.get('gpu', device)}",
        [{"part": name, "ended": part["ended"], "seconds": part["seconds"]} for name, part in done.items()],
    )
    return {**found, "parts": done}


def main(argv: list[str] | None = None) -> None:
    """Measure from the command line."""
    import torch

    parser = argparse.ArgumentParser(
        prog="python -m benchmarks gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"], help="cpu: test this command")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="minutes of audio")
    parser.add_argument("--repeats", type=int, default=3, help="number of repeats")
    parser.add_argument("--json", type=Path, default=Path("gpu.json"), help="JSON file for the results")
    args = parser.parse_args(argv)
    if args.device == "cuda" and not torch.cuda.is_available():
        print(NO_GPU)
        return
    found = measure(args.device, args.minutes, args.repeats)
    write_json(args.json, found)
    print(f"\nThe figures are in {args.json}")
    done: Mapping[str, Mapping[str, object]] = found["parts"]  # type: ignore[assignment]
    if any(part["ended"] != "done" for part in done.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
