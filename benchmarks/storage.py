"""Object storage: listing, reading, writing, and a whole run compared with the same run on disk.

    AWS_ACCESS_KEY_ID=... AWS_SECRET_ACCESS_KEY=... python -m benchmarks storage s3://bucket/scratch \
        --endpoint http://127.0.0.1:7480 --checkpoint pipelines/demo/unispeech-digits-ctc \
        --corpus pipelines/demo/audio

This program writes all files below the url and removes them at the end.

Question of docs/evidence/performance.md, "Object storage": what does object storage cost, compared with a disk?
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.tables import show, write_json
from raysp.storage.s3 import S3Store
from raysp.storage.store import Store
from raysp.storage.stores import expand

MEGABYTE = 10**6


def main(argv: list[str]) -> None:
    """Measure, print the results, and remove the written files."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks storage", description=__doc__)
    parser.add_argument("url", help="scratch folder on the store")
    parser.add_argument("--endpoint", default=os.environ.get("AWS_ENDPOINT_URL"), help="endpoint url of the store")
    parser.add_argument("--objects", type=int, default=10_000, help="number of objects to list")
    parser.add_argument("--megabytes", type=int, default=256, help="size of the file to read and write")
    parser.add_argument("--repeats", type=int, default=3, help="number of repeats")
    parser.add_argument("--corpus", type=Path, help="folder of shards, for whole runs")
    parser.add_argument("--checkpoint", type=Path, help="checkpoint folder")
    parser.add_argument("--json", type=Path, help="JSON file for the results")
    args = parser.parse_args(argv)
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
        if rows:
            show(title, rows)
    if args.json:
        write_json(args.json, found)


def _listing(store: Store, num_objects: int, options: dict[str, str]) -> dict[str, object]:
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda k: store.replace(f"many/{k:06}.parquet", b"x"), range(num_objects)))
    seconds = _best(3, lambda: len(expand(f"{store.url}/many/*.parquet", options).entries))
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
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in openers}
    for _ in range(repeats):
        for name, opener in openers.items():
            started, cpu = time.perf_counter(), time.process_time()
            _read(opener())
            taken[name].append((time.perf_counter() - started, time.process_time() - cpu))
    return [
        {
            "client": name,
            "MB/s": round(megabytes / min(wall for wall, _ in times)),
            "seconds": round(min(wall for wall, _ in times), 2),
            "CPU seconds": round(min(cpu for _, cpu in times), 2),
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
        data, taken = os.urandom(num_bytes), []
        for number in range(50):
            started = time.perf_counter()
            if not store.create(f"put/{num_bytes}/{number}", data):
                raise SystemExit(f"{store.url}/put is not empty")
            taken.append((time.perf_counter() - started) * 1000)
        rows.append(
            {
                "bytes": num_bytes,
                "median ms": round(statistics.median(taken), 1),
                "slowest ms": round(max(taken), 1),
            }
        )
    return rows


def _runs(store: Store, args: argparse.Namespace, options: dict[str, str]) -> list[dict[str, object]]:
    """Label a corpus from disk to disk and from the store to the store, in turn, in one Ray."""
    from raysp import Decode, Label, Parquet, Pipeline, Shards, Transcript
    from raysp.cluster.connection import local_ray
    from raysp.cluster.resources import Resources
    from raysp.labelling.engine.running import run

    for file in sorted(args.corpus.glob("*.parquet")):
        store.replace(f"in/{file.name}", file.read_bytes())
    for file in args.checkpoint.iterdir():
        store.replace(f"model/{file.name}", file.read_bytes())
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder, local_ray(Resources(cpus=3)):
        places = {
            "disk": (str(args.corpus), str(args.checkpoint), folder),
            "S3": (f"{store.url}/in", f"{store.url}/model", store.url),
        }
        for number in range(args.repeats + 1):
            for name, (source, checkpoint, sink) in places.items():
                own = options if name == "S3" else {}
                pipeline = Pipeline(
                    source=Shards(source, storage_options=own),
                    steps=[Decode(), Label(checkpoint, outputs=[Transcript()])],
                    sink=Parquet(f"{sink}/labels-{name}-{number}", storage_options=own),
                )
                result = run(pipeline)
                if number:  # the first of each warms caches
                    rows.append({"place": name, "rows": result.rows, "seconds": round(result.wall_seconds, 2)})
    return rows


def _best(times: int, work: Callable[[], object]) -> float:
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return min(taken)
