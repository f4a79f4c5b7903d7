"""What tests of specs, planning and ops share: small shards, recordings made on the spot, pipelines over them."""

import functools
import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile

import raysp

DEMO = Path(__file__).parents[1] / "pipelines" / "demo"
CHECKPOINT = DEMO / "unispeech-digits-ctc"
AUDIO = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def wav(num_samples: int = 1600, rate: int = 16_000, subtype: str = "PCM_16", seed: int = 0) -> bytes:
    """Make a recording of noise."""
    samples = np.random.default_rng(seed).uniform(-0.5, 0.5, num_samples).astype(np.float32)
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="WAV", subtype=subtype)
    return file.getvalue()


def rows_table(num_rows: int, *, audio: bytes | None = None, prefix: str = "u") -> pa.Table:
    audio = wav() if audio is None else audio
    return pa.table(
        {
            "id": [f"{prefix}{row}" for row in range(num_rows)],
            "audio": pa.array([{"bytes": audio, "path": None}] * num_rows, AUDIO),
            "text": ["one two"] * num_rows,
            "language": ["en" if row % 2 else "de" for row in range(num_rows)],
        }
    )


def write_shard(path: Path, num_rows: int = 3, *, table: pa.Table | None = None, row_group_size: int = 1000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = rows_table(num_rows, prefix=path.stem) if table is None else table
    pq.write_table(table, path, row_group_size=row_group_size)
    return path


def a_pipeline(source: object = "in/*.parquet", sink: object = "out", **fields: object) -> raysp.Pipeline:
    """Make a pipeline; `source` and `sink` are specs or urls, `label` changes the `Label` step."""
    label = {"outputs": [raysp.Transcript()], **fields.pop("label", {})}
    steps = [raysp.Decode(), *fields.pop("keep", ()), raysp.Label(str(CHECKPOINT), **label)]
    return raysp.Pipeline(
        source=source if isinstance(source, raysp.Shards) else raysp.Shards(source),
        steps=fields.pop("steps", steps),
        sink=sink if isinstance(sink, raysp.Parquet) else raysp.Parquet(str(sink)),
        **fields,
    )


class NoCrashes:
    """Stands in for the ledger of attempts."""

    def begin(self, work: str) -> int:
        return 0

    def end(self, work: str) -> None:
        pass

    def reach(self, task: str, part: str, places: int) -> None:
        pass

    def load_failed(self) -> None:
        """Raise the error itself: a test that needs a package which is not installed is passed over by its name."""
        if error := sys.exception():
            raise error

    def actor_id(self) -> str:
        return "here"


def begin_run(plan: Any, run: Any = None) -> Any:
    """Record a run over all shards of a plan, by default one that begins now, and return its sink."""
    from raysp.labelling.planning.opening import begin_share
    from raysp.sink.run_record import RunEntry
    from raysp.sink.shares import ALL

    plan.sink.store.probe()
    begin_share(plan, ALL, run or RunEntry.now())
    return plan.sink


def begin_and_stage(plan: Any) -> None:
    """Record a run and stage its first piece: from then on the record of the sink binds other pipelines."""
    from raysp.sink import stage
    from tests.sink.sinks import results

    shard = plan.corpus.shards[0]
    block = stage.BlockName(shard.name, shard.pieces[0], shard.input_id, plan.stage_id, 0, 1)
    stage.stage(begin_run(plan).store, block, results(list(range(shard.pieces[0].end))))


def label_twice(folder: Path) -> None:
    """Label six spoken digits to `A`, and by a pipeline that skips one of them to `B`."""
    table = pq.read_table(min((DEMO / "audio").glob("*.parquet"))).slice(0, 6)
    write_shard(folder / "in" / "a.parquet", table=table)
    source = raysp.Shards(f"{folder}/in/*.parquet", text="text")
    raysp.run(a_pipeline(source, raysp.Parquet(f"{folder}/A", keep=["speaker_id"])), engine="here", progress=False)
    skipping = a_pipeline(source, raysp.Parquet(f"{folder}/B"), keep=[raysp.Keep(max_seconds=0.4)])
    raysp.run(skipping, engine="here", progress=False)


def stage_here(pipeline: raysp.Pipeline, *, relabel: bool = False, retry: bool = False) -> tuple[Any, Any]:
    """Run the parts of a run up to its first commit; return the job and the plan."""
    job, plan, label = _begin_here(pipeline, relabel=relabel, retry=retry)
    for todo in plan.todo:
        label(todo)
    return job, plan


def _begin_here(pipeline: raysp.Pipeline, *, relabel: bool, retry: bool) -> tuple[Any, Any, Callable[[Any], None]]:
    """Plan and begin a run; return the job, the plan, and a function that labels and stages a shard."""
    from raysp.labelling.engine.running import _job
    from raysp.labelling.engine.workers.job import PieceTodo
    from raysp.labelling.engine.workers.label_actor import LabelActor
    from raysp.labelling.engine.workers.reader import Reader
    from raysp.labelling.engine.workers.step_actor import in_turn
    from raysp.labelling.planning.opening import make_plan
    from raysp.labelling.planning.retrying import plan_retry
    from raysp.labelling.planning.run_plan import Opened

    opened = Opened.of(pipeline)
    plan = plan_retry(opened) if retry else make_plan(opened, relabel=relabel)
    begin_run(plan)
    job = _job(plan, {}, NoCrashes())
    actor = functools.cache(lambda: LabelActor(job))
    apply_steps = in_turn(job)

    def label(todo: Any) -> None:
        reader = Reader(job)
        for piece in todo.pieces:
            item = PieceTodo(todo.shard, piece, todo.retry).to_json()
            for packed in reader(pa.table({"piece": [item]})):
                actor()(apply_steps(packed))

    return job, plan, label
