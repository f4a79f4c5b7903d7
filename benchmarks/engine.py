"""What does the engine cost per piece, and how many actors can one driver feed?

    python -m benchmarks engine
    python -m benchmarks engine --pieces 20000 --actors 8,64 --work-seconds 0.05

Pieces go through `RayPool`, the driver's pool, whose actors are stand-ins: they sleep, and return the message about a
staged piece. Nothing is read or staged. In the same table, `map_batches` of Ray Data sends as many pieces through an
`ActorPoolStrategy` of as many actors, which sleep as long.
"""

import argparse
import gc
import os
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from itertools import islice
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock, patch

import psutil
import pyarrow as pa

from benchmarks.tables import show

if TYPE_CHECKING:
    from raysp.labelling.engine.job import PieceTodo
    from raysp.labelling.engine.ray_actor import Place, SoFar

ACTOR_CPUS = 0.01
FROM_SHARE, TO_SHARE = 0.1, 0.9
SERVERS = ("gcs_server", "raylet")
PIECES_A_SHARD = 100
WORK_VARIABLE = "RAYSP_BENCH_WORK"


class StandInActor:
    """Sleeps instead of labelling, with the methods of `ModelActor`."""

    def __init__(self, job: object) -> None:
        self.seconds = float(os.environ[WORK_VARIABLE])

    def place(self) -> "Place":
        """Return where this actor is."""
        import ray

        from raysp.labelling.engine.ray_actor import Place

        context = ray.get_runtime_context()
        return Place(str(context.get_node_id()), str(context.get_actor_id()))

    def load(self) -> str | None:
        """Return None: there is nothing to load."""
        return None

    def so_far(self) -> "SoFar":
        """Return no counts."""
        from raysp.labelling.engine.ray_actor import SoFar

        return SoFar((), 0)

    def label(self, todo: "PieceTodo") -> tuple[object, dict[str, str]]:
        """Sleep, and return the message about a piece."""
        from raysp.labelling.engine.job import LabelledPiece
        from raysp.sink.receipts import Counts, PieceReceipt

        time.sleep(self.seconds)
        receipt = PieceReceipt(todo.name, todo.part.first, todo.part.end, Counts(rows=1, blocks=1), "stand-in")
        return LabelledPiece(receipt, is_staged=True, num_rows=todo.part.num_rows), {}


class Sleeper:
    """Sleeps instead of labelling, as an actor of Ray Data."""

    def __init__(self) -> None:
        self.seconds = float(os.environ[WORK_VARIABLE])

    def __call__(self, pieces: pa.Table) -> pa.Table:
        """Sleep for each piece of a batch, and return the batch."""
        time.sleep(self.seconds * len(pieces))
        return pieces


def over_actors(pieces: int, actors: int) -> Iterator[object]:
    """Yield the messages of the driver's pool."""
    from raysp.cluster.resources import PoolSize
    from raysp.corpus.shards import Piece, Shard
    from raysp.labelling.engine import ray_pool
    from raysp.sink.commit import Todo

    rows = tuple(Piece(first, first + 1) for first in range(PIECES_A_SHARD))
    names = [f"{number}.parquet" for number in range(pieces // PIECES_A_SHARD)]
    label = SimpleNamespace(pool=SimpleNamespace(memory=None), checkpoint="stand-in")
    plan: Any = SimpleNamespace(
        settings=SimpleNamespace(cpus_per_actor=SimpleNamespace(number=ACTOR_CPUS), gpus_per_actor=0.0),
        pipeline=SimpleNamespace(label=label),
        pool_size=PoolSize(actors, actors),
        pieces_todo=pieces,
        todo=[Todo(Shard(name, name, 1, "", PIECES_A_SHARD, "0" * 16, rows), rows) for name in names],
    )
    no_job: Any = None
    with patch.object(ray_pool, "ModelActor", StandInActor):
        yield from ray_pool.RayPool(plan, no_job, Mock()).label(lambda _: None)


def over_ray_data(pieces: int, actors: int) -> Iterator[object]:
    """Yield the batches of Ray Data's pool, of one piece each."""
    import ray.data
    from ray.data import ActorPoolStrategy

    data = ray.data.from_items([{"piece": number} for number in range(pieces)], override_num_blocks=pieces)
    data.context.enable_progress_bars = False
    data.context.execution_options.preserve_order = False
    compute = ActorPoolStrategy(size=actors, max_tasks_in_flight_per_actor=2)
    options: dict[str, Any] = {"batch_size": 1, "batch_format": "pyarrow", "num_cpus": ACTOR_CPUS}
    labelled = data.map_batches(Sleeper, compute=compute, **options)
    yield from labelled.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)


POOLS: dict[str, Callable[[int, int], Iterator[object]]] = {"the driver's": over_actors, "of Ray Data": over_ray_data}


def measure(pool: str, pieces: int, actors: int, work_seconds: float) -> dict[str, object]:
    """Send pieces through a pool of stand-in actors, on a fresh local Ray, and return a row of the table.

    CPU times and pieces a second are those from a tenth to nine tenths of the pieces. Memory is the growth of this
    process from the start of the pool to its end. Ray's servers are its control store and raylet.
    """
    from raysp.cluster.connection import local_ray
    from raysp.cluster.resources import Resources

    for name in ("ray.data", "raysp.labelling.engine.ray_pool"):
        import_module(name)  # before memory is measured
    os.environ[WORK_VARIABLE] = str(work_seconds)
    pieces = -(-pieces // PIECES_A_SHARD) * PIECES_A_SHARD
    first, last = int(FROM_SHARE * pieces), int(TO_SHARE * pieces)
    with local_ray(Resources(cpus=max(2, os.cpu_count() or 1))):
        resident, started = _resident(), time.perf_counter()
        messages = POOLS[pool](pieces, actors)
        num = sum(1 for _ in islice(messages, first))
        begun, cpu = time.perf_counter(), cpu_seconds()
        num += sum(1 for _ in islice(messages, last - first))
        steady, used = time.perf_counter() - begun, [after - of for after, of in zip(cpu_seconds(), cpu, strict=True)]
        num += sum(1 for _ in messages)
        seconds, growth = time.perf_counter() - started, _resident() - resident
    if num != pieces:
        raise SystemExit(f"{num} messages for {pieces} pieces")
    driver, servers = (1000 * one / (last - first) for one in used)
    return {
        "pool": pool,
        "actors": actors,
        "pieces": pieces,
        "work s": work_seconds,
        "seconds": round(seconds, 1),
        "pieces a second": round((last - first) / steady),
        "work of actors": round(work_seconds * (last - first) / (actors * steady), 3),
        "driver CPU ms": round(driver, 2),
        "servers CPU ms": round(servers, 2),
        "driver MB": round(growth / 1e6, 1),
        "load": round(os.getloadavg()[0], 1),
    }


def cpu_seconds() -> tuple[float, float]:
    """Return the CPU time of this process, and that of Ray's servers."""
    this = psutil.Process()
    servers = 0.0
    for one in this.children(recursive=True):
        try:
            servers += sum(one.cpu_times()[:2]) if one.name() in SERVERS else 0.0
        except psutil.Error:  # it has ended
            continue
    return sum(this.cpu_times()[:2]), servers


def _resident() -> int:
    gc.collect()
    return int(psutil.Process().memory_info().rss)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this part."""
    parser.add_argument("--pieces", default="2000", help="numbers of pieces")
    parser.add_argument("--actors", default="8", help="numbers of actors")
    parser.add_argument("--work-seconds", type=float, default=0.0, help="work of a piece")
    parser.add_argument("--pools", default=",".join(POOLS), help="pools to measure")


def run(args: argparse.Namespace) -> list[dict[str, object]]:
    """Measure each number of pieces and of actors on each pool, and print a table."""
    cases = [(int(pieces), int(actors)) for pieces in args.pieces.split(",") for actors in args.actors.split(",")]
    found = [measure(pool, *case, args.work_seconds) for case in cases for pool in args.pools.split(",")]
    show("Pools of stand-in actors that sleep", found)
    return found
