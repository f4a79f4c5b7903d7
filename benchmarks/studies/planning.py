"""Time to plan a corpus of many small shards on a local disk.

    python -m benchmarks planning --shards 10000

Each shard has about 20 kB, one recording. The first plan reads every footer; the second finds them recorded.
"""

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.inputs.checkpoints import BUNDLED
from benchmarks.tables import show, write_json

STORED_BYTES = 20_000


def make_corpus(folder: Path, num_shards: int) -> None:
    """Write shards of incompressible noise, which planning does not read."""
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    rng = np.random.default_rng(0)
    for number in range(num_shards):
        audio = pa.array([{"bytes": rng.bytes(STORED_BYTES), "path": None}], kind)
        place = folder / f"{number // 1000:03}" / f"{number:06}.parquet"
        place.parent.mkdir(exist_ok=True)
        pq.write_table(pa.table({"id": [f"u{number}"], "audio": audio}), place)


def measure(num_shards: int) -> dict[str, object]:
    """Plan twice: a new corpus and a recorded one."""
    import raysp
    from raysp.labelling.planning.opening import begin
    from raysp.sink.run_record import RunEntry

    with tempfile.TemporaryDirectory(prefix="raysp-bench-") as name:
        folder = Path(name)
        (folder / "corpus").mkdir()
        make_corpus(folder / "corpus", num_shards)
        pipeline = raysp.Pipeline(
            source=raysp.Shards(str(folder / "corpus")),
            steps=[raysp.Decode(), raysp.Label(str(BUNDLED), outputs=[raysp.Transcript()])],
            sink=raysp.Parquet(str(folder / "labels")),
        )
        started = time.perf_counter()
        plan = raysp.plan(pipeline)
        first = time.perf_counter() - started
        begin(plan, RunEntry.now())
        started = time.perf_counter()
        again = raysp.plan(pipeline)
        second = time.perf_counter() - started
    if (len(plan.corpus.shards), len(again.corpus.fresh)) != (num_shards, 0):
        raise SystemExit(f"{len(plan.corpus.shards)} shards planned, {len(again.corpus.fresh)} new the second time")
    return {
        "shards": num_shards,
        "first plan, s": round(first, 2),
        "shards a second": round(num_shards / first),
        "second plan, s": round(second, 2),
        "most memory, MB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000),
    }


def main(argv: list[str] | None = None) -> None:
    """Measure from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks planning", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shards", type=int, default=10_000, help="number of shards")
    parser.add_argument("--json", type=Path, help="JSON file for the results")
    args = parser.parse_args(argv)
    found = measure(args.shards)
    show("Planning from a local disk", [found])
    if args.json:
        write_json(args.json, found)


if __name__ == "__main__":
    main()
