"""Estimates of `raysp plan` compared with what the run then does.

    python -m benchmarks estimates --layers 12

A corpus of speech-like durations is sampled, then labelled whole. The run is in this process, so that its peak memory
is that of an actor and a reader together; that of the calibration is an actor's and the sample's.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.inputs.checkpoints import make
from benchmarks.tables import show, write_json

RATE = 16_000
CALIBRATE = """
import sys, raysp
from raysp.specs.pipeline import Pipeline
source, checkpoint, sink = sys.argv[1:]
steps = [raysp.Decode(), raysp.Label(checkpoint, outputs=[raysp.Transcript()])]
found = raysp.estimate(Pipeline(raysp.Shards(source), steps=steps, sink=raysp.Parquet(sink)), calibrate=True)
print(found.speed.rtfx, found.speed.memory_bytes, found.memory.actor)
"""


def make_corpus(folder: Path, num_rows: int) -> None:
    """Write shards of noise with log-normal durations of 1 to 60 seconds, about 6 on average."""
    import io

    import soundfile

    rng = np.random.default_rng(0)
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    for shard in range(4):
        rows = []
        for seconds in np.clip(rng.lognormal(1.6, 0.6, num_rows // 4), 1, 60):
            file = io.BytesIO()
            soundfile.write(file, rng.uniform(-0.3, 0.3, round(seconds * RATE)), RATE, format="FLAC")
            rows.append({"bytes": file.getvalue(), "path": None})
        ids = [f"{shard}-{row}" for row in range(len(rows))]
        table = pa.table({"id": ids, "audio": pa.array(rows, kind)})
        pq.write_table(table, folder / f"{shard}.parquet", row_group_size=50)


def measure(num_rows: int, layers: int) -> dict[str, object]:
    """Estimate and run, and return both."""
    import raysp
    from raysp.sink.receipts import Counts, pieces_by_run
    from raysp.sink.sinks import Sink

    with tempfile.TemporaryDirectory(prefix="raysp-bench-") as name:
        folder = Path(name)
        (folder / "in").mkdir()
        make_corpus(folder / "in", num_rows)
        checkpoint = str(make(folder / "checkpoint", layers=layers))
        steps = [raysp.Decode(), raysp.Label(checkpoint, outputs=[raysp.Transcript()])]
        pipeline = raysp.Pipeline(
            source=raysp.Shards(f"{folder}/in/*.parquet"), steps=steps, sink=raysp.Parquet(f"{folder}/out")
        )
        plan = raysp.plan(pipeline)
        began = time.perf_counter()
        found = raysp.estimate(plan, sample=64)
        took = time.perf_counter() - began
        argv = [sys.executable, "-c", CALIBRATE, f"{folder}/in/*.parquet", checkpoint, f"{folder}/out"]
        said = subprocess.run(argv, check=True, capture_output=True, text=True).stdout.split()
        rtfx, peak, predicted = map(float, said)
        ran = raysp.run(pipeline, progress=False)
        counts = sum((piece.counts for _, piece in pieces_by_run(Sink.of(pipeline.sink).store)), Counts())
    assert found.audio_seconds is not None
    assert found.simulation is not None
    return {
        "rows": ran.rows,
        "sampled": found.rows_sampled,
        "estimate, s": round(took, 2),
        "audio, s: estimated": round(found.audio_seconds.value),
        "+-": round(found.audio_seconds.margin),
        "run": round(counts.audio_seconds),
        "padding: simulated": round(found.simulation.padding_efficiency or 0, 3),
        "run ": round(counts.padding_efficiency or 0, 3),
        "RTFx: calibrated": round(rtfx, 2),
        "run  ": round(counts.audio_seconds / counts.busy_seconds, 2),
        "memory of an actor, GB: predicted": round(predicted / 1e9, 2),
        "calibrated": round(peak / 1e9, 2),
    }


def main(argv: list[str] | None = None) -> None:
    """Measure from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks estimates", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=200, help="rows of the corpus")
    parser.add_argument("--layers", type=int, default=4, help="layers of the model")
    parser.add_argument("--json", type=Path, help="JSON file for the results")
    args = parser.parse_args(argv)
    found = measure(args.rows, args.layers)
    show("Estimates and the run", [found])
    if args.json:
        write_json(args.json, found)
