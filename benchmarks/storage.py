"""What does object storage cost, compared with a disk?

    AWS_ACCESS_KEY_ID=... AWS_SECRET_ACCESS_KEY=... python -m benchmarks storage s3://bucket/scratch \
        --endpoint http://127.0.0.1:7480 --checkpoint pipelines/demo/unispeech-digits-ctc \
        --corpus pipelines/demo/audio

Listing, reading and writing, and a whole run compared with the same run on disk. All files are written below the url
and removed at the end.
"""

import argparse
import os
import statistics
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.tables import show
from benchmarks.timing import in_turn, timed
from raysp.storage.s3 import S3Store
from raysp.storage.store import Store
from raysp.storage.stores import expand

MEGABYTE = 10**6


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this part."""
    parser.add_argument("url", help="scratch folder on the store")
    parser.add_argument("--endpoint", default=os.environ.get("AWS_ENDPOINT_URL"), help="endpoint url of the store")
    parser.add_argument("--objects", type=int, default=10_000, help="number of objects to list")
    parser.add_argument("--megabytes", type=int, default=256, help="size of the file to read and write")
    parser.add_argument("--repeats", type=int, default=3, help="number of repeats")
    parser.add_argument("--corpus", type=Path, help="folder of shards, for whole runs")
    parser.add_argument("--checkpoint", type=Path, help="checkpoint folder")


def run(args: argparse.Namespace) -> dict[str, object]:
    """Measure, print the results, and remove the written files."""
    options = {"endpoint_url": args.endpoint} if args.endpoint else {}
    store = S3Store(args.url, options)
    try:
        found = {
            "listing": [_listing(store, args.objects, options)],
            "reading": _reading(store, args.megabytes, args.repeats, options),
            "writing": _writing(store),
            "runs": _runs(store, args, options) if args.corpus and args.checkpoint else [],
        }
    finally:
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(store.delete, [entry.path for entry in store.list()]))
    for title, rows in found.items():
        show(title, rows)
    return found


def _listing(store: Store, num_objects: int, options: dict[str, str]) -> dict[str, object]:
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda k: store.replace(f"many/{k:06}.parquet", b"x"), range(num_objects)))
    taken = timed({"listing": lambda: expand(f"{store.url}/many/*.parquet", options)}, 3)["listing"]
    seconds = min(one.wall for one in taken)
    return {"objects": num_objects, "seconds": round(seconds, 2), "objects a second": round(num_objects / seconds)}


def _reading(store: Store, megabytes: int, repeats: int, options: dict[str, str]) -> list[dict[str, object]]:
    """Read one column of bytes as a piece is read, with three clients in turn."""
    num_rows = megabytes * 10
    noise = np.random.default_rng(0).bytes(megabytes * MEGABYTE)
    rows = [noise[k * 100_000 : (k + 1) * 100_000] for k in range(num_rows)]
    sink = pa.BufferOutputStream()
    table = pa.table({"id": [str(k) for k in range(num_rows)], "audio": pa.array(rows, pa.binary())})
    pq.write_table(table, sink, compression="none", row_group_size=num_rows // 4)
    store.replace("large.parquet", sink.getvalue().to_pybytes())
    key = f"{store.url.removeprefix('s3://')}/large.parquet"
    openers: dict[str, Callable[[], object]] = {
        "raysp (boto3)": lambda: store.open("large.parquet"),
        "pyarrow.fs": _pyarrow(options, key),
        "s3fs": _s3fs(options, key),
    }
    taken = timed({name: lambda opener=opener: _read(opener()) for name, opener in openers.items()}, repeats)
    return [
        {
            "client": name,
            "MB/s": round(megabytes / min(one.wall for one in times)),
            "seconds": round(min(one.wall for one in times), 2),
            "CPU seconds": round(min(one.cpu for one in times), 2),
        }
        for name, times in taken.items()
    ]


def _read(file: object) -> None:
    reader = pq.ParquetFile(file, buffer_size=2**20, pre_buffer=False)
    for _ in reader.iter_batches(160, use_threads=False):
        pass


def _pyarrow(options: dict[str, str], key: str) -> Callable[[], object]:
    from pyarrow.fs import S3FileSystem

    files = S3FileSystem(endpoint_override=options.get("endpoint_url"), region="us-east-1")
    return lambda: files.open_input_file(key)


def _s3fs(options: dict[str, str], key: str) -> Callable[[], object]:
    import s3fs

    files = s3fs.S3FileSystem(endpoint_url=options.get("endpoint_url"))
    return lambda: files.open(key, "rb")


def _writing(store: Store) -> list[dict[str, object]]:
    rows = []
    for num_bytes in (1_000, 100_000, 1_000_000, 10_000_000):
        taken = timed({"put": partial(_put, store, os.urandom(num_bytes), count())}, 50)["put"]
        milliseconds = [1000 * one.wall for one in taken]
        median, slowest = statistics.median(milliseconds), max(milliseconds)
        rows.append({"bytes": num_bytes, "median ms": round(median, 1), "slowest ms": round(slowest, 1)})
    return rows


def _put(store: Store, data: bytes, numbers: Iterator[int]) -> None:
    path = f"put/{len(data)}/{next(numbers)}"
    if not store.create(path, data):
        raise SystemExit(f"{store.url}/{path} exists")


def _runs(store: Store, args: argparse.Namespace, options: dict[str, str]) -> list[dict[str, object]]:
    """Label a corpus from disk to disk and from the store to the store, in turn, in one Ray."""
    from raysp import Decode, Label, Parquet, Pipeline, Shards, Transcript
    from raysp.cluster.connection import local_ray
    from raysp.cluster.resources import Resources
    from raysp.labelling.engine.running import run as run_pipeline

    for file in sorted(args.corpus.glob("*.parquet")):
        store.replace(f"in/{file.name}", file.read_bytes())
    for file in args.checkpoint.iterdir():
        store.replace(f"model/{file.name}", file.read_bytes())
    numbers = count()

    def label(place: str, source: object, checkpoint: object, sink: object) -> dict[str, object]:
        own = options if place == "S3" else {}
        pipeline = Pipeline(
            source=Shards(str(source), storage_options=own),
            steps=[Decode(), Label(str(checkpoint), outputs=[Transcript()])],
            sink=Parquet(f"{sink}/labels-{next(numbers)}", storage_options=own),
        )
        result = run_pipeline(pipeline)
        return {"place": place, "rows": result.rows, "seconds": round(result.wall_seconds, 2)}

    with tempfile.TemporaryDirectory() as folder, local_ray(Resources(cpus=3)):
        ways = {
            "disk": partial(label, "disk", args.corpus, args.checkpoint, folder),
            "S3": partial(label, "S3", f"{store.url}/in", f"{store.url}/model", store.url),
        }
        found = in_turn(ways, args.repeats, warm_up=1)
    return [row for rows in found.values() for row in rows]
