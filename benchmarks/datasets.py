"""`raysp.Labeller` and `raysp.apply` over a table: audio seconds per wall second once the model is loaded.

    python -m benchmarks datasets --threads 2 --minutes 4 --repeats 3

`Labeller` labels the table in a process with this number of torch threads. `apply` labels the same rows with an actor
of as many CPUs on a local Ray; its speed is that between the first block of label rows and the last.
"""

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import checkpoints, corpus
from benchmarks.tables import show, write_json

WAYS = ("Labeller", "apply")
BLOCKS = 8
"""Blocks of the dataset of `apply`."""


def measure_once(way: str, checkpoint: str, shards: Sequence[str], threads: int) -> dict[str, object]:
    """Label a table in this process."""
    table = pa.concat_tables([pq.read_table(one) for one in shards])
    rtfx, texts = _labeller(checkpoint, table, threads) if way == "Labeller" else _apply(checkpoint, table, threads)
    return {"rtfx": rtfx, "texts": hashlib.sha256(json.dumps(sorted(texts.items())).encode()).hexdigest()[:8]}


def _labeller(checkpoint: str, table: pa.Table, threads: int) -> tuple[float, dict[str, str]]:
    import torch

    import raysp

    torch.set_num_threads(threads)
    with raysp.Labeller([raysp.Decode(), raysp.Label(checkpoint, outputs=[raysp.Transcript()])]) as labeller:
        labeller(table[:2])
        started = time.perf_counter()
        found = labeller(table)
        seconds = time.perf_counter() - started
    return _audio_seconds(found) / seconds, _texts(found)


def _apply(checkpoint: str, table: pa.Table, threads: int) -> tuple[float, dict[str, str]]:
    import ray
    import ray.data

    import raysp

    ray.init(address="local", num_cpus=threads + 1, include_dashboard=False, log_to_driver=False)
    label = raysp.Label(checkpoint, outputs=[raysp.Transcript()], pool=raysp.Pool(cpus=threads))
    rows = -(-table.num_rows // BLOCKS)
    dataset = ray.data.from_arrow([table[first : first + rows] for first in range(0, table.num_rows, rows)])
    dataset.context.enable_progress_bars = False
    labelled = raysp.apply([raysp.Decode(), label], dataset)
    found: list[pa.Table] = []
    times: list[float] = []
    for batch in labelled.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        found.append(batch)
        times.append(time.perf_counter())
    return _audio_seconds(pa.concat_tables(found[1:])) / (times[-1] - times[0]), _texts(pa.concat_tables(found))


def _audio_seconds(labels: pa.Table) -> float:
    return sum(one or 0.0 for one in labels.column("seconds").to_pylist())


def _texts(labels: pa.Table) -> dict[str, str]:
    return dict(zip(labels.column("id").to_pylist(), labels.column("pred_text").to_pylist(), strict=True))


def measure(args: argparse.Namespace) -> list[dict[str, object]]:
    """Measure both ways in turn, each time in a new process. Stops if their texts differ."""
    with tempfile.TemporaryDirectory(prefix="raysp-bench-") as folder:
        checkpoint = args.checkpoint or str(checkpoints.make(Path(folder) / "base"))
        shards = corpus.build(Path(folder) / "in", "test-like", minutes=args.minutes, seed=0, shards=1)
        found: dict[str, list[dict[str, object]]] = {way: [] for way in WAYS}
        for way in [way for _ in range(args.repeats) for way in WAYS]:
            command = [sys.executable, "-m", "benchmarks.datasets", "--once", way, "--threads", str(args.threads)]
            command += ["--checkpoint", checkpoint, *map(str, shards)]
            env = {**os.environ, "OMP_NUM_THREADS": str(args.threads)}
            said = subprocess.run(command, check=True, capture_output=True, text=True, env=env).stdout
            found[way].append(json.loads(said.splitlines()[-1]))
    texts = {one["texts"] for way in WAYS for one in found[way]}
    if len(texts) > 1:
        raise SystemExit(f"the texts differ: {texts}")
    return [_row(way, [float(str(one["rtfx"])) for one in found[way]]) for way in WAYS]


def _row(way: str, rtfx: Sequence[float]) -> dict[str, object]:
    return {"way": way, "RTFx": f"{statistics.median(rtfx):.2f} ({min(rtfx):.2f}-{max(rtfx):.2f})"}


def main(argv: list[str] | None = None) -> None:
    """Measure from the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks datasets", description=__doc__)
    parser.add_argument("shards", nargs="*", help=argparse.SUPPRESS)
    parser.add_argument("--once", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--checkpoint", help="a model folder; by default one of published size with random weights")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=4.0, help="minutes of audio")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, help="JSON file for the results")
    args = parser.parse_args(argv)
    if args.once:
        sys.stdout.write(f"{json.dumps(measure_once(args.once, args.checkpoint, args.shards, args.threads))}\n")
        return
    found = measure(args)
    show(f"{args.minutes:g} minutes of audio, {args.threads} threads", found)
    if args.json:
        write_json(args.json, found)


if __name__ == "__main__":
    main()
