"""Overhead of the engine: real Ray Data plans over stand-in models that sleep.

    python -m benchmarks engine
    python -m benchmarks engine --blocks 2000 --actors 1,2,4 --work-seconds 1

Engine time per block: tiny blocks, no work, and the CPU time of the driver and of Ray's servers for them, which limits
what one driver can feed wherever the workers are. Driver memory in the same run. Scaling: the share of the actors' time
spent working, in steady state, for a given work time per block.

The plan, the grouping into tasks, packing, the pool and the messages are raysp's own; only decoding and the model are
replaced, and nothing is staged or committed.

Question of docs/evidence/performance.md, "Engine":
what does the engine cost per block, and how many actors can one driver feed?
"""

import argparse
import gc
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from benchmarks.tables import show, write_json

if TYPE_CHECKING:
    import psutil

FROM_SHARE, TO_SHARE = 0.1, 0.9
READERS = 8
"""Tasks that read at once. Each yields at most two blocks a step of Ray Data's loop, a tenth of a second."""
SERVERS = ("gcs_server", "raylet")


class StandInReader:
    """Yields one block of silence per piece."""

    def __init__(self, job: object) -> None:
        self.samples = np.zeros(int(os.environ["RAYSP_BENCH_SAMPLES"]), np.int16)

    def __call__(self, items: pa.Table) -> Iterator[pa.Table]:
        from raysp.labelling.engine.workers.job import PieceTodo
        from raysp.labelling.engine.workers.messages import pack
        from raysp.ops.rows import RowStatus, statuses_table, with_waves
        from raysp.sink.layout import BlockName

        for text in items.column("piece")[0].as_py().split("\n"):
            todo = PieceTodo.from_json(text)
            shard, piece = todo.shard, todo.piece
            block = with_waves(statuses_table([RowStatus(piece.first)]), [self.samples])
            yield pack(BlockName(shard.name, piece, shard.input_id, "stand-in", 0, 1), block)


class StandInActor:
    """Sleeps instead of labelling."""

    def __init__(self, job: object) -> None:
        self.work_seconds = float(os.environ["RAYSP_BENCH_WORK"])
        self.model = threading.Lock()

    def __call__(self, packed: pa.Table) -> pa.Table:
        from raysp.labelling.engine.workers.messages import FatalFailure, message_row, unpack

        unpack(packed)
        with self.model:  # calls overlap; a model does one thing at a time
            time.sleep(self.work_seconds)
            return message_row(FatalFailure(str(time.time())))  # any message does


@dataclass(frozen=True)
class Measured:
    """One pass over stand-ins."""

    actors: int
    blocks: int
    tasks: int
    work_seconds: float
    block_kilobytes: float
    seconds: float
    """From the start of the plan to the last message; Ray and the actors start in it, too."""
    milliseconds_a_block: float
    """Wall time of the steady state, a block and actor, less its work."""
    efficiency: float
    """Work in steady state, of what the actors could have done."""
    driver_cpu_milliseconds: float
    """CPU time of this process, a block in steady state."""
    servers_cpu_milliseconds: float
    """CPU time of Ray's control store and raylet, a block in steady state."""
    total_cpu_milliseconds: float
    """CPU time of all processes of the run, a block in steady state."""
    load_average: float
    """Of the last minute, at the end: other programs count, too."""
    driver_growth_megabytes: float
    """Of resident memory, from the first tenth of the blocks to the end."""
    driver_kilobytes_a_block: float


def measure(actors: int, blocks: int, work_seconds: float, num_samples: int, *, a_task_each: bool = False) -> Measured:
    """Run stand-in blocks through a fresh local Ray."""
    import raysp
    from raysp.cluster.connection import local_ray
    from raysp.cluster.process_state import quiet_datasets
    from raysp.cluster.resources import Resources
    from raysp.corpus.shards import PIECE_BYTES, Piece, Shard
    from raysp.labelling.engine import running
    from raysp.labelling.engine.on_ray import stream
    from raysp.labelling.engine.on_ray.counted_attempts import CountedAttempts
    from raysp.labelling.engine.run_events import RunEvents
    from raysp.labelling.planning.opening import make_plan
    from raysp.labelling.planning.run_plan import Opened
    from raysp.sink.event_log import EventLog
    from raysp.sink.todo import Todo
    from raysp.storage.store import LocalStore

    os.environ["RAYSP_BENCH_WORK"], os.environ["RAYSP_BENCH_SAMPLES"] = str(work_seconds), str(num_samples)
    demo = Path(__file__).parent.parent / "pipelines" / "demo"
    with tempfile.TemporaryDirectory(prefix="raysp-bench-") as folder:
        pipeline = raysp.Pipeline(
            source=raysp.Shards(f"{demo}/audio/*.parquet"),
            steps=[
                raysp.Decode(),
                raysp.Label(
                    f"{demo}/unispeech-digits-ctc", outputs=[raysp.Transcript()], pool=raysp.Pool(actors=actors)
                ),
            ],
            sink=raysp.Parquet(folder),
        )
        # As on a cluster, where no number of actors is refused because this machine has fewer CPUs.
        plan = make_plan(Opened.of(pipeline, Resources(cpus=actors + READERS, can_grow=True)))
    pieces = tuple(Piece(first, first + 1) for first in range(blocks))
    num_bytes = blocks * PIECE_BYTES if a_task_each else blocks
    shard = Shard("stand-in.parquet", "stand-in", num_bytes, "", blocks, "0" * 16, pieces)
    plan = replace(plan, todo=(Todo(shard, pieces),))
    first, last = int(FROM_SHARE * blocks), int(TO_SHARE * blocks) - 1
    with (
        _stand_ins(),
        local_ray(plan.resources),
        quiet_datasets(),
        tempfile.TemporaryDirectory(prefix="raysp-bench-") as logs,
        EventLog(LocalStore(logs), "benchmark") as log,
    ):
        job = running._job(plan, {}, CountedAttempts())
        tasks = len(list(stream.group([("", num_bytes / blocks)] * blocks, plan.resources, blocks)))
        started = time.perf_counter()
        found = []
        for message in stream.label(plan, job, lambda _: None, RunEvents(log)):
            found.append(message)
            if len(found) == first + 1:
                resident, cpu = _resident(), CpuSeconds.now()
            if len(found) == last + 1:
                cpu = CpuSeconds.now().since(cpu)
        seconds = time.perf_counter() - started
        growth = _resident() - resident
    if len(found) != blocks:
        raise SystemExit(f"{len(found)} messages for {blocks} blocks")
    finished = np.sort([float(one.reason) for one in found])
    steady = finished[last] - finished[first]
    a_block = steady / (last - first)
    return Measured(
        actors=actors,
        blocks=blocks,
        tasks=tasks,
        work_seconds=work_seconds,
        block_kilobytes=2 * num_samples / 1000,
        seconds=seconds,
        milliseconds_a_block=1000 * (a_block - work_seconds / actors),
        efficiency=work_seconds / (actors * a_block),
        driver_cpu_milliseconds=1000 * cpu.driver / (last - first),
        servers_cpu_milliseconds=1000 * cpu.servers / (last - first),
        total_cpu_milliseconds=1000 * cpu.total / (last - first),
        load_average=os.getloadavg()[0],
        driver_growth_megabytes=growth / 1e6,
        driver_kilobytes_a_block=growth / 1000 / (blocks - first),
    )


@dataclass(frozen=True)
class CpuSeconds:
    """CPU time of this process and its children."""

    driver: float
    servers: float
    """Of Ray's control store and raylet."""
    total: float
    """Of all of them, those that have ended not included."""

    @classmethod
    def now(cls) -> "CpuSeconds":
        """Return the CPU time until now."""
        import psutil

        this = psutil.Process()
        seconds = {one: _cpu_seconds(one) for one in (this, *this.children(recursive=True))}
        servers = sum(used for one, used in seconds.items() if one != this and _name(one) in SERVERS)
        return cls(seconds[this], servers, sum(seconds.values()))

    def since(self, before: "CpuSeconds") -> "CpuSeconds":
        """Return the CPU time after another one."""
        return CpuSeconds(self.driver - before.driver, self.servers - before.servers, self.total - before.total)


def _cpu_seconds(process: "psutil.Process") -> float:
    import psutil

    try:
        times = process.cpu_times()
    except psutil.Error:  # it has ended
        return 0.0
    return float(times.user + times.system)


def _name(process: "psutil.Process") -> str:
    import psutil

    try:
        return str(process.name())
    except psutil.Error:
        return ""


class _stand_ins:  # noqa: N801 - reads as a statement
    """Replace reader and actor with stand-ins in `stream`, whose functions look up both names when called."""

    def __enter__(self) -> None:
        from raysp.labelling.engine.on_ray import stream

        self.kept = stream.Reader, stream.LabelActor
        stream.Reader, stream.LabelActor = StandInReader, StandInActor  # type: ignore[assignment,misc]

    def __exit__(self, *_: object) -> None:
        from raysp.labelling.engine.on_ray import stream

        stream.Reader, stream.LabelActor = self.kept  # type: ignore[misc]


def _resident() -> int:
    import psutil

    gc.collect()
    return psutil.Process().memory_info().rss


def rows(measured: list[Measured]) -> list[dict[str, object]]:
    """Return table rows."""
    return [
        {
            "actors": one.actors,
            "blocks": one.blocks,
            "tasks": one.tasks,
            "work s": f"{one.work_seconds:g}",
            "block kB": f"{one.block_kilobytes:.0f}",
            "seconds": f"{one.seconds:.1f}",
            "engine ms a block": f"{one.milliseconds_a_block:.2f}",
            "efficiency": f"{one.efficiency:.3f}" if one.work_seconds else "",
            "driver CPU ms": f"{one.driver_cpu_milliseconds:.2f}",
            "servers CPU ms": f"{one.servers_cpu_milliseconds:.2f}",
            "all CPU ms": f"{one.total_cpu_milliseconds:.1f}",
            "load": f"{one.load_average:.1f}",
            "driver MB": f"{one.driver_growth_megabytes:+.1f}",
            "kB a block": f"{one.driver_kilobytes_a_block:.1f}",
        }
        for one in measured
    ]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this part."""
    parser.add_argument("--blocks", type=int, default=2000, help="blocks of the passes without work; 0: no such pass")
    parser.add_argument("--actors", default="1,2,4", help="actors of the passes with work")
    parser.add_argument("--work-seconds", type=float, default=1.0, help="work time per block in the passes with work")
    parser.add_argument("--blocks-an-actor", type=int, default=30, help="blocks per actor in the passes with work")
    parser.add_argument(
        "--block-kilobytes", type=int, default=320, help="size of a block's samples; 320 are ten seconds at 16 kHz"
    )


def measure_all(args: argparse.Namespace) -> dict[str, object]:
    """Measure the engine alone, then its scaling, and print both."""
    samples = args.block_kilobytes * 500
    bare = [measure(1, args.blocks, 0, samples, a_task_each=each) for each in (False, True) if args.blocks]
    show("Engine time a block, one stand-in actor that does nothing: grouped pieces, and one piece a task", rows(bare))
    scaling = [
        measure(actors, actors * args.blocks_an_actor, args.work_seconds, samples)
        for actors in (int(one) for one in str(args.actors).split(",") if one)
    ]
    show("Scaling over stand-in actors that sleep", rows(scaling))
    return {"engine": [asdict(one) for one in bare], "scaling": [asdict(one) for one in scaling]}


def main(argv: list[str] | None = None) -> None:
    """Measure from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks engine", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    parser.add_argument("--json", type=Path, help="JSON file for the results")
    args = parser.parse_args(argv)
    found = measure_all(args)
    if args.json:
        write_json(args.json, found)


if __name__ == "__main__":
    main()
