"""Commits a second on a store whose every request takes its time, by how many shards are in flight.

    python -m benchmarks commits
    python -m benchmarks commits --latency 0.05 --shards 2000 --in-flight 8x1,8x16,4x32

Shards, staged blocks and label shards lie in a temporary folder; each request to the store, and each that reads a shard
(one to open it, one for its ids), waits before it is done. Tasks, processes and the protocol are a run's own.
"""

import argparse
import functools
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.tables import show, write_json

if TYPE_CHECKING:
    from raysp.engine.commits import Due
    from raysp.engine.tasks import Job
    from raysp.io.store import Store

ROWS = 20
SOURCE_REQUESTS = 2
MILLION = 1_000_000


class SlowStore:
    """A store that waits before each request, and counts them."""

    def __init__(self, store: "Store", latency: float) -> None:
        self._store, self._latency = store, latency
        self.url = store.url
        self.requests: Counter[str] = Counter()

    def scratch(self) -> AbstractContextManager[Path]:
        """Lend a path, which takes no request."""
        return self._store.scratch()

    def __getattr__(self, name: str) -> Any:
        def request(*arguments: object, **options: object) -> object:
            self.requests[name] += 1
            time.sleep(self._latency)
            return getattr(self._store, name)(*arguments, **options)

        return request


def commit_slowly(latency: float, job: "Job", batch: "Sequence[Due]") -> list[Any]:
    """Do as `commit_shards`, on a worker, with a store that waits."""
    from raysp.engine import commits, tasks
    from raysp.io.store import open_store
    from raysp.sink.source_columns import read_source_columns

    def read_slowly(*arguments: Any) -> pa.Table:
        time.sleep(SOURCE_REQUESTS * latency)
        return read_source_columns(*arguments)

    tasks.open_store = lambda *arguments: SlowStore(open_store(*arguments), latency)  # type: ignore[assignment,misc]
    tasks.read_source_columns = read_slowly  # type: ignore[assignment]
    return commits.commit_shards(job, batch)


def measure(num_shards: int, latency: float, in_flight: Sequence[tuple[int, int]]) -> list[dict[str, object]]:
    """Commit as many shards by each number of tasks and shards a task; in one local Ray."""
    from raysp.engine.cluster import local_ray
    from raysp.planning import Resources

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

    from raysp.engine import commits

    commits.TASKS_IN_FLIGHT, commits.SHARDS_A_TASK = tasks, shards_a_task
    commits.SHARDS_IN_FLIGHT, commits.ROWS_A_TASK = tasks * shards_a_task, shards_a_task * ROWS
    with tempfile.TemporaryDirectory(prefix="raysp-bench-") as folder:
        job, shards = _staged(Path(folder), num_shards)
        found = commits.Commits(job, {})
        slow: Any = functools.partial(commit_slowly, latency)
        found.task = ray.remote(_named(slow)).options(num_cpus=0, scheduling_strategy="SPREAD")
        _warm_up(found, tasks)
        started = time.perf_counter()
        outcomes = []
        for shard in shards:
            found.start(shard)
            outcomes += found.finished()
        outcomes += found.rest()
        seconds = time.perf_counter() - started
        failed = [one for one in outcomes if not hasattr(one, "ok")]
        if failed or len(outcomes) != num_shards:
            raise SystemExit(f"{len(outcomes)} outcomes for {num_shards} shards, failed: {failed[:1]}")
    return seconds


def _named(work: Any) -> Any:
    def commit_shards(job: "Job", batch: "Sequence[Due]") -> list[Any]:
        found: list[Any] = work(job, batch)
        return found

    return commit_shards


def _warm_up(found: Any, tasks: int) -> None:
    """Start the workers and import what they need."""
    import ray

    ray.get([ray.remote(_import_all).options(num_cpus=0).remote() for _ in range(tasks)])


def _import_all() -> None:

    time.sleep(1)  # so that no worker takes the place of another


def _staged(folder: Path, num_shards: int) -> "tuple[Job, list[Any]]":
    """Write small shards, plan them and stage made-up labels for all."""
    import raysp
    from raysp.engine import running
    from raysp.engine.attempts import Attempts
    from raysp.io.store import open_store
    from raysp.planning import local_resources
    from raysp.sink import stage
    from raysp.sink.opening import make_plan

    demo = Path(__file__).parent.parent / "pipelines" / "demo"
    first = pq.read_table(min((demo / "audio").glob("*.parquet"))).slice(0, ROWS)
    (folder / "in").mkdir()
    pq.write_table(first, folder / "in" / "0.parquet")
    pipeline = raysp.Pipeline(
        source=raysp.Shards(f"{folder}/in/*.parquet"),
        steps=[raysp.Decode(), raysp.Label(f"{demo}/unispeech-digits-ctc", outputs=[raysp.Transcript()])],
        sink=raysp.Parquet(f"{folder}/labels"),
    )
    plan = make_plan(pipeline, local_resources(pipeline))
    job = running._job(plan, {}, Attempts())
    (todo,) = plan.todo
    table = _labels(job.output_schema)
    store = open_store(pipeline.sink.url)
    shards = [replace(todo.shard, name=f"{number // 1000}/{number}.parquet") for number in range(num_shards)]
    for shard in shards:
        (piece,) = shard.pieces
        stage.stage(store, stage.BlockName(shard.name, piece, shard.input_id, job.fingerprint, 0, 1), table)
    return job, shards


def _labels(outputs: pa.Schema) -> pa.Table:
    """Make labels of the type that a run stages, one window a row."""
    from raysp.sink.commit import RESULT_SCHEMA

    fixed = {"row": list(range(ROWS)), "seconds": [1.0] * ROWS, "status": ["ok"] * ROWS}
    columns = {field.name: pa.array(fixed.get(field.name, [None] * ROWS), field.type) for field in RESULT_SCHEMA}
    columns |= {field.name: pa.nulls(ROWS, field.type) for field in outputs}
    return pa.table({**columns, "window": [0] * ROWS, "windows": [1] * ROWS})


def main(argv: list[str]) -> None:
    """Measure from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks commits", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shards", type=int, default=1000)
    parser.add_argument("--latency", type=float, default=0.05, help="seconds a request")
    parser.add_argument("--in-flight", default="8x1,8x16,4x32,8x32", help="tasks x shards a task, several")
    parser.add_argument("--json", type=Path, help="write the figures there")
    args = parser.parse_args(argv)
    pairs = [(int(tasks), int(shards)) for tasks, shards in (one.split("x") for one in args.in_flight.split(","))]
    found = measure(args.shards, args.latency, pairs)
    show(f"Commits of {ROWS} rows on a store of {1000 * args.latency:g} ms a request", found)
    if args.json:
        write_json(args.json, found)
