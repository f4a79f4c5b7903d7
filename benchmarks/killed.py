"""What is lost, and what is done twice, when a job is killed and run again?

    python -m benchmarks killed
    python -m benchmarks killed --minutes 20 --systems S3,S4 --at 0.5,0.9,first

Each system of `python -m benchmarks whole` but S0 first runs undisturbed. Then, for each share of that time, or once
there is a first label file, it runs into an empty folder, its whole process tree is killed, as by a machine that goes
down, and the same command runs again over the same folder.
"""

import argparse
import glob
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.inputs import checkpoints, corpus
from benchmarks.programs import systems
from benchmarks.tables import show


def labelled(folder: Path) -> Counter[tuple[str, int]]:
    """Count the label rows of each recording and window; files that do not open count as a row of their own name."""
    found: Counter[tuple[str, int]] = Counter()
    for name in glob.glob(f"{folder}/*.parquet"):
        try:
            table = pq.read_table(name)
        except pa.ArrowInvalid:
            found[f"unreadable: {name}", 0] += 1
            continue
        windows = table["number"].to_pylist() if "number" in table.column_names else [0] * len(table)
        found.update(zip(table["id"].to_pylist(), windows, strict=True))
    return found


def start(system: str, checkpoint: Path, shards: str, folder: Path) -> subprocess.Popen[bytes]:
    """Start a system that labels shards into a folder."""
    if system == "S4":
        command = systems.run_command(checkpoint, shards, folder)
    else:
        command = systems.program_command(system, checkpoint, shards, folder)
    quiet = subprocess.DEVNULL
    return subprocess.Popen(command, env=systems.environment(), cwd=systems.REPOSITORY, stdout=quiet, stderr=quiet)


def finish(process: subprocess.Popen[bytes]) -> None:
    """Wait for a job; a job that fails ends the measurement."""
    if process.wait():
        raise SystemExit(f"{' '.join(map(str, process.args))} ended with exit code {process.returncode}")  # type: ignore[arg-type]


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and all that it started, Ray's servers in sessions of their own included."""
    tree = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    for one in tree:
        try:
            one.kill()
        except psutil.NoSuchProcess:
            continue
    process.wait()
    psutil.wait_procs(tree, timeout=30)


def undisturbed(system: str, checkpoint: Path, shards: str) -> tuple[float, Counter[tuple[str, int]]]:
    """Return the seconds of a job, and its label rows."""
    with tempfile.TemporaryDirectory(prefix="raysp-bench-") as folder:
        began = time.perf_counter()
        finish(start(system, checkpoint, shards, Path(folder)))
        return time.perf_counter() - began, labelled(Path(folder))


def disturbed(
    system: str,
    checkpoint: Path,
    shards: str,
    share: float | None,
    seconds: float,
    whole_rows: Counter[tuple[str, int]],
) -> dict[str, object]:
    """Kill a job after a share of its seconds, or at its first label file, run it again, and return the table row."""
    with tempfile.TemporaryDirectory(prefix="raysp-bench-") as folder:
        process = start(system, checkpoint, shards, Path(folder))
        if share is None:
            while process.poll() is None and not glob.glob(f"{folder}/*.parquet"):
                time.sleep(0.01)
        else:
            time.sleep(share * seconds)
        over = process.poll() is not None
        kill(process) if not over else None
        left = labelled(Path(folder))
        began = time.perf_counter()
        finish(start(system, checkpoint, shards, Path(folder)))
        again, rows = time.perf_counter() - began, labelled(Path(folder))
    return {
        "system": system,
        "killed at": "was over" if over else "first file" if share is None else f"{share:.0%}",
        "rows then": sum(left.values()),
        "rows at the end": sum(rows.values()),
        "twice": sum((rows - whole_rows).values()),
        "missing": sum((whole_rows - rows).values()),
        "second run": f"{again / seconds:.2f}",
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this part."""
    corpus.add_digits(parser)
    parser.add_argument("--systems", default="S1,S2,S3,S4", help="systems to kill (%(default)s)")
    parser.add_argument("--minutes", type=float, default=20.0, help="minutes of audio")
    parser.add_argument("--shards", type=int, default=8, help="number of shards")
    parser.add_argument("--corpus", default="test-like", help="kind of corpus")
    parser.add_argument("--row-group-rows", type=int, default=corpus.ROW_GROUP_ROWS, help="recordings of a row group")
    parser.add_argument("--container", choices=corpus.CONTAINERS, default="flac", help="container of the recordings")
    parser.add_argument("--checkpoint", default="small", help=f"{checkpoints.NAMES} (%(default)s)")
    parser.add_argument(
        "--at",
        default="0.8,first",
        help="shares of the undisturbed time, or `first`: at the first label file; separated by commas",
    )


def run(args: argparse.Namespace) -> list[dict[str, object]]:
    """Measure each system, and print a table."""
    table = []
    with tempfile.TemporaryDirectory(prefix="raysp-bench-") as work:
        checkpoint, shards = checkpoints.named(args.checkpoint, Path(work)), f"{work}/corpus/*.parquet"
        options = {"container": args.container, "row_group_rows": args.row_group_rows, **corpus.digits_of(args)}
        corpus.build(Path(work) / "corpus", args.corpus, minutes=args.minutes, shards=args.shards, **options)
        for system in args.systems.split(","):
            seconds, rows = undisturbed(system, checkpoint, shards)
            for at in args.at.split(","):
                share = None if at == "first" else float(at)
                table.append(disturbed(system, checkpoint, shards, share, seconds, rows))
                print(f"{system}: {seconds:.1f} s undisturbed; {table[-1]}", file=sys.stderr)
    show("Killed, and run again over the same folder", table)
    return table
