"""How many requests a run makes to an object store for each shard, and for each recording that is read by path."""

import json
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import raysp
from benchmarks.inputs.synthetic_bucket import SyntheticBucket
from tests.corpora import a_pipeline, write_shard
from tests.here import run_without_ray
from tests.runs import DEMO

pytestmark = pytest.mark.slow


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    """A bucket that counts requests; runs label in this process, so that it sees all of them."""
    run_without_ray(monkeypatch)
    monkeypatch.setenv("RAYSP_BEAT_SECONDS", "3600")  # what depends on time is left out
    (tmp_path / "objects").mkdir()
    made = SyntheticBucket(tmp_path / "objects")
    with made.used():
        put_shards(made, tmp_path, 1)
        requests(made, "in-1", "any")  # a process asks once which conditions a store honours
        yield made


def digits(first: int, number: int):
    return pq.read_table(min((DEMO / "audio").glob("*.parquet"))).slice(first, number)


def put_shards(bucket: SyntheticBucket, folder: Path, number: int) -> None:
    """Write shards of two digits each to `in-<number>` of the bucket."""
    for place in range(number):
        file = write_shard(folder / f"{place}.parquet", table=digits(2 * place, 2))
        bucket.put_object("bucket", f"in-{number}/{place}.parquet", file.read_bytes())


def requests(bucket: SyntheticBucket, source: str, sink: str) -> Counter[str]:
    """Label a corpus in the bucket, and return the requests."""
    bucket.requests.clear()
    result = raysp.run(a_pipeline(f"s3://bucket/{source}", f"s3://bucket/{sink}"), progress=False)
    assert (result.exit_code, result.errors) == (0, {})
    return Counter(bucket.requests)


def each(fewer: Counter[str], more: Counter[str], number: int) -> dict[str, float]:
    """Return the requests for each of `number` units that only the second run labelled."""
    return {kind: (more[kind] - fewer[kind]) / number for kind in ("LIST", "GET", "HEAD", "PUT", "DELETE")}


def test_a_shard_of_one_block(bucket, tmp_path):
    found = []
    for number in (2, 6):
        put_shards(bucket, tmp_path, number)
        found.append(requests(bucket, f"in-{number}", f"out-{number}"))
    # Footer, shard, and source columns; the staged block. PUT: the begin of the piece, block, label shard.
    # HEAD: whether recordings were withdrawn.
    assert each(*found, 4) == {"LIST": 1, "GET": 4, "HEAD": 1, "PUT": 3, "DELETE": 1}


def test_a_plan_and_the_status_of_a_sink_do_not_ask_for_each_shard_again(bucket, tmp_path):
    found = []
    for number in (2, 6):
        put_shards(bucket, tmp_path, number)
        pipeline = a_pipeline(f"s3://bucket/in-{number}", f"s3://bucket/out-{number}")
        raysp.run(pipeline, progress=False)
        bucket.requests.clear()
        assert raysp.plan(pipeline).todo == ()
        assert raysp.status(pipeline.sink.url, pipeline=pipeline).is_complete
        found.append(Counter(bucket.requests))
    assert found[0] == found[1]


def test_a_further_piece_of_a_shard(bucket):
    """Of six recordings, as one piece and as three: claimed hours fill a piece."""
    found = []
    for name, claims in (("one", [0.5] * 6), ("six", [0.5, 8000.0] * 3)):
        lines = []
        for place, (row, seconds) in enumerate(zip(digits(0, 6).to_pylist(), claims, strict=True)):
            bucket.put_object("bucket", f"{name}/{place}.flac", row["audio"]["bytes"])
            lines.append(json.dumps({"audio_filepath": f"{place}.flac", "id": row["id"], "duration": seconds}))
        bucket.put_object("bucket", f"{name}/m.jsonl", "\n".join(lines).encode())
        found.append(requests(bucket, f"{name}/m.jsonl", f"of-{name}"))
    # A piece reads its lines once to label and once to commit, and is recorded when it begins. Its results are staged,
    # read and removed. One listing finds them all.
    pieces = 2
    assert each(*found, 1) == {"LIST": 0, "GET": 3 * pieces, "HEAD": 0, "PUT": 2 * pieces, "DELETE": pieces}
    left = bucket.list_objects_v2(Bucket="bucket", Prefix="of-six/.raysp/stage/")
    assert left["Contents"] == []
    shards = (bucket.get_object("bucket", f"of-{name}/m-00000.parquet")["Body"].read() for name in ("one", "six"))
    one, six = (pq.read_table(pa.BufferReader(data)).to_pylist() for data in shards)
    assert [row["status"] for row in six] == ["ok"] * 6
    assert six == one
