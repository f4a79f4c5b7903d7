"""Cost of reading a row group in slices: on a local disk, or in object storage.

    python -m benchmarks slices --minutes 20,60 --slices 1,4,12,20,60
    AWS_ACCESS_KEY_ID=... AWS_SECRET_ACCESS_KEY=... python -m benchmarks slices s3://bucket/scratch \
        --endpoint http://127.0.0.1:7480

Each shard is one row group of rows of 10 s, as large as FLAC, with and without a page index. The slices together are
all rows, and are read as the pieces of a run are.
"""

import argparse
import tempfile
import time
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.tables import show, write_json
from raysp.corpus import sources
from raysp.corpus.shards import Piece, Shard, input_id
from raysp.storage.store import join_url
from raysp.storage.stores import open_store

ROW_SECONDS, ROW_BYTES = 10, 210_000
COLUMNS = ["id", "audio"]


def main(argv: list[str]) -> None:
    """Measure and print the results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks slices", description=__doc__)
    parser.add_argument("url", nargs="?", help="scratch folder on a store; by default a temporary folder")
    parser.add_argument("--endpoint", help="endpoint url of the store")
    parser.add_argument("--minutes", default="20,60", help="minutes of audio of the row groups")
    parser.add_argument("--slices", default="1,4,12,20,60", help="numbers of slices of a row group")
    parser.add_argument("--repeats", type=int, default=5, help="number of repeats, of which the fastest counts")
    parser.add_argument("--json", type=Path, help="JSON file for the results")
    args = parser.parse_args(argv)
    options = {"endpoint_url": args.endpoint} if args.endpoint else {}
    slices = [int(number) for number in args.slices.split(",")]
    with tempfile.TemporaryDirectory(prefix="raysp-bench-") as folder:
        rows = [
            _measured(_write(args.url or folder, int(minutes), with_index, options), number, args.repeats, options)
            | {"page index": "yes" if with_index else "no"}
            for minutes in args.minutes.split(",")
            for with_index in (False, True)
            for number in slices
            if number <= int(minutes)
        ]
    show("Reading a row group in slices", rows)
    if args.json:
        write_json(args.json, rows)


def _write(url: str, minutes: int, with_index: bool, options: Mapping[str, object]) -> Shard:
    """Write a shard of one row group."""
    rng, num_rows = np.random.default_rng(0), minutes * 60 // ROW_SECONDS
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    audio = pa.array([{"bytes": rng.bytes(ROW_BYTES), "path": None} for _ in range(num_rows)], kind)
    file = pa.BufferOutputStream()
    table = pa.table({"id": [str(row) for row in range(num_rows)], "audio": audio})
    pq.write_table(table, file, row_group_size=num_rows, write_page_index=with_index)
    data = file.getvalue().to_pybytes()
    open_store(url, options).replace("slices.parquet", data)
    place = join_url(url, "slices.parquet")
    surveyed = sources.survey("parquet", place, "", options, COLUMNS)
    seconds = float(minutes * 60)
    return Shard(
        "x", place, len(data), "1", num_rows, input_id(len(data), "1", surveyed), (Piece(0, num_rows),), seconds=seconds
    )


def _measured(shard: Shard, slices: int, repeats: int, options: Mapping[str, object]) -> dict[str, object]:
    """Return the least times to read a shard in slices."""
    edges = [shard.num_rows * k // slices for k in range(slices + 1)]
    taken = []
    for _ in range(repeats):
        started, cpu = time.perf_counter(), time.process_time()
        for first, end in pairwise(edges):
            num_rows = sum(len(table) for table in sources.read_batches(shard, Piece(first, end), COLUMNS, options))
            if num_rows != end - first:
                raise SystemExit(f"{num_rows} rows read, expected {end - first}")
        taken.append((time.perf_counter() - started, time.process_time() - cpu))
    return {
        "minutes": round((shard.seconds or 0) / 60),
        "MB": round(shard.num_bytes / 1e6, 1),
        "slices": slices,
        "s": round(min(wall for wall, _ in taken), 3),
        "CPU s": round(min(used for _, used in taken), 3),
    }
