"""Commits per second on a store with a fixed latency, by number of shards in flight; and the memory of a commit.

    python -m benchmarks commits
    python -m benchmarks commits --latency 0.05 --shards 2000 --in-flight 8x1,8x16,4x32
    python -m benchmarks commits --memory --rows 300 --seconds 30

Shards, staged results and label shards are in a temporary folder. Each request to the store, and each that reads a
shard (one to open it, one for its ids), waits first. Tasks, processes and the protocol are those of a run.
With --memory one process commits a shard of one piece of frame embeddings, and its peak is measured.
"""

import argparse
import multiprocessing
import resource
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.tables import show, write_json

if TYPE_CHECKING:
    from raysp.corpus.shards import Shard
    from raysp.labelling.engine.job import Job
    from raysp.storage.store import Store

ROWS = 20
SOURCE_REQUESTS = 2
MILLION = 1_000_000
MIB = 1024 * 1024
FRAME_WIDTH, FRAMES_A_SECOND = 768, 50
BLOCK_SECONDS = 600


class SlowStore:
    """A store that waits before each request and counts the requests."""

    def __init__(self, store: "Store", latency: float) -> None:
        self._store, self._latency = store, latency
        self.url = store.url
        self.requests: Counter[str] = Counter()

    def scratch(self) -> AbstractContextManager[Path]:
        """Return a local scratch path, without a request."""
        return self._store.scratch()

    def __getattr__(self, name: str) -> Any:
        def request(*arguments: object, **options: object) -> object:
            self.requests[name] += 1
            time.sleep(self._latency)
            return getattr(self._store, name)(*arguments, **options)

        return request


def commit_slowly(latency: float, job: "Job", batch: Sequence[Any]) -> Any:
    """Run `commit_shards` on a worker, with a `SlowStore`."""
    from raysp.labelling.engine import piece
    from raysp.labelling.engine import ray_commits as commits
    from raysp.labelling.planning.carried import read_source_columns

    def read_slowly(*arguments: Any) -> pa.Table:
        time.sleep(SOURCE_REQUESTS * latency)
        return read_source_columns(*arguments)

    vars(job)["store"] = SlowStore(job.store, latency)  # of a cached property
    piece.read_source_columns = read_slowly  # type: ignore[assignment]
    return commits.commit_shards(job, batch)


def measure(num_shards: int, latency: float, in_flight: Sequence[tuple[int, int]]) -> list[dict[str, object]]:
    """Commit the same number of shards with each number of tasks and of shards per task, in one local Ray."""
    from raysp.cluster.connection import local_ray
    from raysp.cluster.resources import Resources

    rows = []
    with local_ray(Resources(cpus=2)):
        for tasks, shards in in_flight:
            seconds = _measure_one(num_shards, latency, tasks, shards)
            rows.append(
                {
                    "tasks x shards": f"{tasks} x {shards}",
                    "shards": num_shards,
                    "seconds": f"{seconds:.1f}",
                    "commits a second": f"{num_shards / seconds:.0f}",
                    "hours a million": f"{MILLION * seconds / num_shards / 3600:.1f}",
                }
            )
    return rows


def _measure_one(num_shards: int, latency: float, tasks: int, shards_a_task: int) -> float:
    import ray

    from raysp.labelling.engine import ray_commits as commits
    from raysp.sink.receipts import ShardReceipt

    commits.TASKS_IN_FLIGHT, commits.SHARDS_A_TASK = tasks, shards_a_task
    commits.SHARDS_IN_FLIGHT, commits.ROWS_A_TASK = tasks * shards_a_task, shards_a_task * ROWS
    with tempfile.TemporaryDirectory(prefix="raysp-bench-") as folder:
        job, shards = _staged(Path(folder), num_shards)
        found = commits.Commits(ray.put(job), {})
        slow: Any = partial(commit_slowly, latency)
        found.task = ray.remote(_named(slow))
        _warm_up(found, tasks)
        started = time.perf_counter()
        outcomes = []
        for shard in shards:
            found.start(shard, 0)
            outcomes += found.finished()
        for rest in found.rest():
            outcomes += rest
        seconds = time.perf_counter() - started
        failed = [one for one in outcomes if not isinstance(one, ShardReceipt)]
        if failed or len(outcomes) != num_shards:
            raise SystemExit(f"{len(outcomes)} outcomes for {num_shards} shards, failed: {failed[:1]}")
    return seconds


def _named(work: Any) -> Any:
    def commit_shards(job: "Job", batch: Sequence[Any]) -> Any:
        return work(job, batch)

    return commit_shards


def _warm_up(found: Any, tasks: int) -> None:
    """Start the workers and import their modules."""
    import ray

    ray.get([ray.remote(_import_all).options(num_cpus=0).remote() for _ in range(tasks)])


def _import_all() -> None:

    time.sleep(1)  # so that no worker takes the place of another


def _staged(folder: Path, num_shards: int) -> "tuple[Job, list[Any]]":
    """Write small shards, plan them and stage artificial labels for all rows."""
    import raysp
    from raysp.labelling.engine.job import Job
    from raysp.labelling.planning.opening import make_plan
    from raysp.labelling.planning.run_plan import Opened
    from raysp.sink import stage
    from raysp.sink.layout import StagedName

    demo = Path(__file__).parents[2] / "pipelines" / "demo"
    first = pq.read_table(min((demo / "audio").glob("*.parquet"))).slice(0, ROWS)
    (folder / "in").mkdir()
    pq.write_table(first, folder / "in" / "0.parquet")
    pipeline = raysp.Pipeline(
        source=raysp.Shards(f"{folder}/in/*.parquet"),
        steps=[raysp.Decode(), raysp.Label(f"{demo}/unispeech-digits-ctc", outputs=[raysp.Transcript()])],
        sink=raysp.Parquet(f"{folder}/labels"),
    )
    plan = make_plan(Opened.of(pipeline))
    job = Job.of(plan)
    (todo,) = plan.todo
    table = _labels(job.output_schema)
    shards = [replace(todo.shard, name=f"{number // 1000}/{number}.parquet") for number in range(num_shards)]
    for shard in shards:
        (piece,) = shard.pieces
        stage.write(
            plan.sink.store, [table], partial(StagedName, shard.name, piece, shard.input_id, job.fingerprint, 0)
        )
    return job, shards


def _labels(outputs: pa.Schema) -> pa.Table:
    """Return labels as a run stages them."""
    from raysp.sink.commit import RESULT_SCHEMA

    fixed = {"row": list(range(ROWS)), "seconds": [1.0] * ROWS, "status": ["ok"] * ROWS}
    columns = {field.name: pa.array(fixed.get(field.name, [None] * ROWS), field.type) for field in RESULT_SCHEMA}
    return pa.table({**columns, **{field.name: pa.nulls(ROWS, field.type) for field in outputs}})


def measure_memory(num_rows: int, seconds: float) -> dict[str, object]:
    """Return peak memory and time of a commit of one shard of frame embeddings, in a separate process."""
    with tempfile.TemporaryDirectory(prefix="raysp-bench-") as folder:
        staged_bytes = _in_process(_stage_frames, folder, num_rows, seconds)
        peak, took = _in_process(_commit_frames, folder, num_rows)
    return {
        "rows": num_rows,
        "seconds a row": f"{seconds:g}",
        "staged, MiB": f"{staged_bytes / MIB:.0f}",
        "peak of the process, MiB": f"{peak / MIB:.0f}",
        "seconds": f"{took:.1f}",
    }


def _in_process(work: Callable[..., Any], *arguments: object) -> Any:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work, arguments)


def _frames_shard(num_rows: int) -> tuple[pa.Schema, "Shard"]:
    from raysp.corpus.shards import Piece, Shard

    outputs = pa.schema([("embedding", pa.list_(pa.list_(pa.float32(), FRAME_WIDTH)))])
    return outputs, Shard("frames.parquet", "frames.parquet", 1, "", num_rows, "0" * 16, (Piece(0, num_rows),))


def _stage_frames(folder: str, num_rows: int, seconds: float) -> int:
    """Stage a piece as actors do, a part of its rows at a time."""
    from raysp.sink import stage
    from raysp.sink.commit import RESULT_SCHEMA
    from raysp.sink.layout import StagedName
    from raysp.storage.store import LocalStore

    outputs, shard = _frames_shard(num_rows)
    random = np.random.default_rng(0)
    frames = int(seconds * FRAMES_A_SECOND)
    num_bytes = 0

    def tables() -> Iterator[pa.Table]:
        nonlocal num_bytes
        for rows in np.array_split(np.arange(num_rows), max(1, round(num_rows * seconds / BLOCK_SECONDS))):
            values = random.standard_normal(len(rows) * frames * FRAME_WIDTH, np.float32)
            vectors = pa.FixedSizeListArray.from_arrays(pa.array(values), FRAME_WIDTH)
            offsets = pa.array(np.arange(len(rows) + 1) * frames, pa.int32())
            fixed = {"row": rows, "seconds": [seconds] * len(rows), "status": ["ok"] * len(rows)}
            columns = [pa.array(fixed.get(field.name, [None] * len(rows)), field.type) for field in RESULT_SCHEMA]
            columns.append(pa.ListArray.from_arrays(offsets, vectors))
            table = pa.Table.from_arrays(columns, schema=pa.schema([*RESULT_SCHEMA, *outputs]))
            num_bytes += table.nbytes
            yield table

    name = StagedName(shard.name, shard.pieces[0], shard.input_id, "f0", 0)
    stage.write(LocalStore(folder), tables(), lambda: name)
    return num_bytes


def _commit_frames(folder: str, num_rows: int) -> tuple[int, float]:
    from raysp.sink.commit import LabelShard, commit
    from raysp.storage.store import LocalStore

    outputs, shard = _frames_shard(num_rows)
    started = time.perf_counter()
    label_shard = LabelShard(
        shard,
        "f0",
        lambda piece: pa.table({"id": [str(row) for row in range(piece.first, piece.end)]}),
        outputs,
    )
    commit(LocalStore(folder), label_shard)
    took = time.perf_counter() - started
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, took


def main(argv: list[str]) -> None:
    """Measure from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks commits", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shards", type=int, default=1000, help="number of shards")
    parser.add_argument("--latency", type=float, default=0.05, help="seconds per request")
    parser.add_argument("--in-flight", default="8x1,8x16,4x32,8x32", help="tasks x shards per task, several")
    parser.add_argument("--memory", action="store_true", help="measure the memory of one commit of frame embeddings")
    parser.add_argument("--rows", type=int, default=300, help="rows of that commit")
    parser.add_argument("--seconds", type=float, default=30.0, help="seconds of each of those rows")
    parser.add_argument("--json", type=Path, help="JSON file for the results")
    args = parser.parse_args(argv)
    if args.memory:
        found = [measure_memory(args.rows, args.seconds)]
        show(f"One commit of frame embeddings, {FRAME_WIDTH} wide, {FRAMES_A_SECOND} frames a second", found)
        if args.json:
            write_json(args.json, found)
        return
    pairs = [(int(tasks), int(shards)) for tasks, shards in (one.split("x") for one in args.in_flight.split(","))]
    found = measure(args.shards, args.latency, pairs)
    show(f"Commits of {ROWS} rows on a store of {1000 * args.latency:g} ms a request", found)
    if args.json:
        write_json(args.json, found)
