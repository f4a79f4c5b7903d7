"""What do planning, resuming and `status` take with a million shards, and the driver with a million pieces?

    python -m benchmarks scale --shards 1000000

Shards, label shards and receipts are in a synthetic bucket: every request is counted and answered from memory, so the
seconds are those of raysp without its S3 client. `--latency` adds the time of a request. The last part is the driver's
loop over as many pieces, with workers that answer at once; receipts and the lease are real.
"""

import argparse
import gc
import tempfile
import time
from collections.abc import Callable, Generator, Sized
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.inputs.checkpoints import BUNDLED
from benchmarks.inputs.synthetic_bucket import SyntheticBucket, numbered
from benchmarks.tables import show
from benchmarks.timing import forget_peak, memory
from raysp.corpus.shards import AUDIO
from raysp.storage.opened import content_of

if TYPE_CHECKING:
    import raysp
    from raysp.corpus.shards import Shard
    from raysp.labelling.engine.execution import OnPiece, Outcome
    from raysp.labelling.engine.job import Message
    from raysp.labelling.planning.run_plan import Plan
    from raysp.sink.commit import Todo
    from raysp.sink.receipts import ShardReceipt

T = TypeVar("T")

ROWS = 4
COMMITTED = 0.99
"""Share of the shards that are committed when the run is resumed."""


def the_shard() -> bytes:
    """Return the content of every shard."""
    audio = pa.array([{"bytes": bytes(100), "path": None}] * ROWS, AUDIO)
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"id": [f"u{row}" for row in range(ROWS)], "audio": audio}), sink)
    return bytes(sink.getvalue())


def the_pipeline() -> "raysp.Pipeline":
    """Return a pipeline from the bucket to the bucket."""
    import raysp

    return raysp.Pipeline(
        source=raysp.Shards("s3://scale/in"),
        steps=[raysp.Decode(), raysp.Label(str(BUNDLED), outputs=[raysp.Transcript()])],
        sink=raysp.Parquet("s3://scale/out"),
    )


class Measuring:
    """Rows of a table: seconds, CPU seconds, memory and requests of each part."""

    def __init__(self, bucket: SyntheticBucket) -> None:
        self.bucket = bucket
        self.rows: list[dict[str, object]] = []

    def __call__(self, part: str, work: Callable[..., T], *arguments: object) -> T:
        """Measure a part, and return its result."""
        gc.collect()
        forget_peak()
        self.bucket.requests.clear()
        before, started, cpu = memory("VmRSS"), time.perf_counter(), time.process_time()
        result = work(*arguments)
        requests = self.bucket.requests
        row = {
            "part": part,
            "s": round(time.perf_counter() - started, 1),
            "CPU s": round(time.process_time() - cpu, 1),
            "peak MB": round(memory("VmHWM") / 1e6),
            "growth MB": round((memory("VmRSS") - before) / 1e6),
            **{kind: requests[kind] for kind in ("LIST", "GET", "HEAD", "PUT", "DELETE")},
        }
        self.rows.append(row)
        print(row, flush=True)
        return result


def measure(num_shards: int, latency: float = 0.0) -> list[dict[str, object]]:
    """Plan, begin, resume, show, and drive a run over this many shards."""
    from raysp.corpus import surveys

    most = surveys.MOST_PROCESSES
    surveys.MOST_PROCESSES = 1  # the bucket is in this process
    try:
        with tempfile.TemporaryDirectory(prefix="raysp-scale-") as folder:
            return _measure(num_shards, SyntheticBucket(Path(folder), latency))
    finally:
        surveys.MOST_PROCESSES = most


def _measure(num_shards: int, bucket: SyntheticBucket) -> list[dict[str, object]]:
    import raysp
    from raysp.labelling.planning.opening import begin
    from raysp.sink.run_record import RunEntry
    from raysp.storage.store import probe

    data = the_shard()
    bucket.series.append(numbered("in/{}/", ".parquet", num_shards, data))
    measuring, pipeline = Measuring(bucket), the_pipeline()
    with bucket.used():
        plan = measuring("first plan", raysp.plan, pipeline)
        _check(plan, num_shards, num_shards)
        shard = plan.corpus.shards[0]
        probe(plan.sink.store)
        measuring("recording it", begin, plan, RunEntry.now())
        fingerprint = plan.fingerprint
        del plan
        plan = measuring("plan again", raysp.plan, pipeline)
        _check(plan, num_shards, num_shards)
        receipt, done = _receipt(shard, fingerprint), int(num_shards * COMMITTED)
        bucket.series.append(numbered("out/{}/", ".parquet", done, _label_shard(data, receipt)))
        [entry] = plan.sink.store.list(shard.name)
        measuring("driver's loop", _drive, plan, replace(receipt, version=content_of(entry)))
        del plan
        plan = measuring("resuming", raysp.plan, pipeline)
        _check(plan, num_shards, num_shards - done)
        del plan
        found = measuring("status", lambda: raysp.status(pipeline.sink.url, pipeline=pipeline))
        if (found.shards, found.shards_committed) != (num_shards, done):
            raise SystemExit(f"status found {found.shards_committed} of {found.shards} shards committed")
    return measuring.rows


def _check(plan: "Plan", num_shards: int, num_todo: int) -> None:
    if (len(plan.corpus.shards), len(plan.todo)) != (num_shards, num_todo):
        raise SystemExit(f"the plan has {len(plan.todo)} of {len(plan.corpus.shards)} shards to do")


def _receipt(shard: "Shard", fingerprint: str) -> "ShardReceipt":
    """Return the receipt of a label shard."""
    from raysp.sink.receipts import Counts, ShardReceipt

    return ShardReceipt(shard.name, Counts(ROWS, audio_seconds=40.0), fingerprint=fingerprint, input_id=shard.input_id)


def _label_shard(data: bytes, receipt: "ShardReceipt") -> bytes:
    """Return a label shard with the metadata that raysp reads back."""
    from raysp.sink import footer

    table = pq.read_table(pa.BufferReader(data)).select(["id"])
    metadata = footer.encode(receipt, metadata={})
    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata(metadata), sink)
    return bytes(sink.getvalue())


def _drive(plan: "Plan", receipt: "ShardReceipt") -> None:
    """Run the driver's loop with workers that answer at once; each commit has a receipt with these counts."""
    from raysp.labelling.engine.execution import Execution
    from raysp.labelling.engine.run_progress import Progress
    from raysp.sink import lease
    from raysp.sink.run_log import RunLog
    from raysp.sink.sinks import Sink

    store = Sink.of(plan.pipeline.sink).store
    progress = Progress(rows_total=plan.rows_todo, shards_total=len(plan.corpus.shards), shards_committed=0)
    run_id = "20260101T000000Z-scale"
    with lease.held(store) as own, RunLog(store, run_id) as log:
        workers: Any = AnsweringWorkers(plan, receipt)
        failed = Execution(plan, own, log, progress, lambda _: None, workers)()
    if failed or progress.rows != plan.rows_todo:
        raise SystemExit(f"the driver counted {progress.rows} of {plan.rows_todo} rows, and {len(failed)} failures")
    growth = [after - before for before, after in zip(workers.memory, workers.memory[1:], strict=False)]
    print(f"memory over the loop, MB: {[round(one / 1e6) for one in workers.memory]}, {sum(growth) / 1e6:.0f} in all")


class AnsweringWorkers:
    """Workers that answer at once: each piece has one block, and each commit succeeds."""

    def __init__(self, plan: "Plan", receipt: "ShardReceipt") -> None:
        self.plan, self.commits = plan, AnsweringCommits(receipt)
        self.memory: list[float] = []
        """Memory of the process after each tenth of the pieces, from the first one on."""

    def label(self, on_piece: "OnPiece") -> "Generator[Message]":
        """Yield a message for each piece."""
        from raysp.labelling.engine.job import LabelledPiece, PieceTodo
        from raysp.sink.receipts import Counts, PieceReceipt

        every = max(1, self.plan.pieces_todo // 10)
        pieces = (PieceTodo(todo.shard, piece, piece, todo.retry) for todo in self.plan.todo for piece in todo.pieces)
        for number, one in enumerate(pieces):
            on_piece(one)
            if number % every == 0:
                self.memory.append(memory("VmRSS"))
            amounts = {"windows": ROWS, "audio_seconds": 40.0, "real_samples": 640_000, "padded_samples": 650_000}
            counts = Counts(one.part.num_rows, 1, busy_seconds=0.1, staged_bytes=1000, **amounts)
            receipt = PieceReceipt(one.name, one.part.first, one.part.end, counts, "host:1", float(number))
            yield LabelledPiece(receipt, is_staged=True, num_rows=one.part.num_rows)
        self.memory.append(memory("VmRSS"))


class AnsweringCommits:
    """Commits that succeed at once."""

    in_flight: Sized = ()

    def __init__(self, receipt: "ShardReceipt") -> None:
        self._receipt = receipt
        self._outcomes: list[Outcome] = []

    def start(self, todo: "Todo", staged_bytes: int) -> None:
        """Count a shard as committed."""
        self._outcomes.append(replace(self._receipt, shard=todo.shard.name))

    def finished(self, seconds: float = 0.0) -> "list[Outcome]":
        """Return the outcomes since the last call."""
        found, self._outcomes = self._outcomes, []
        return found

    def stop(self, seconds: float) -> "list[Outcome]":
        """Return the outcomes since the last call."""
        return self.finished()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this part."""
    parser.add_argument("--shards", type=int, default=1_000_000, help="number of shards")
    parser.add_argument("--latency", type=float, default=0.0, metavar="MS", help="milliseconds of each request")


def run(args: argparse.Namespace) -> list[dict[str, object]]:
    """Measure and print."""
    found = measure(args.shards, args.latency / 1000)
    show(f"A driver over {args.shards:,} shards", found)
    return found
