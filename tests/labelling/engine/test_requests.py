"""How many requests a run makes to an object store for each shard."""

from collections import Counter
from pathlib import Path

import pytest

import raysp
from benchmarks.inputs.synthetic_bucket import SyntheticBucket
from tests.corpora import a_pipeline, digits_table, write_shard

pytestmark = pytest.mark.slow


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    """A bucket that counts the requests of this process."""
    monkeypatch.setenv("RAYSP_BEAT_SECONDS", "3600")  # what depends on time is left out
    (tmp_path / "objects").mkdir()
    made = SyntheticBucket(tmp_path / "objects")
    with made.used():
        put_shards(made, tmp_path, 1)
        requests(made, "in-1", "any")  # a process asks once which conditions a store honours
        yield made


def put_shards(bucket: SyntheticBucket, folder: Path, number: int) -> None:
    """Write shards of two digits each to `in-<number>` of the bucket."""
    for place in range(number):
        file = write_shard(folder / f"{place}.parquet", table=digits_table(2, first=2 * place))
        bucket.put_object("bucket", f"in-{number}/{place}.parquet", file.read_bytes())


def requests(bucket: SyntheticBucket, source: str, sink: str) -> Counter[str]:
    """Label a corpus in the bucket, and return the requests."""
    bucket.requests.clear()
    result = raysp.run(a_pipeline(f"s3://bucket/{source}", f"s3://bucket/{sink}"), engine="here", progress=False)
    assert (result.exit_code, result.errors) == (0, {})
    return Counter(bucket.requests)


def each(fewer: Counter[str], more: Counter[str], number: int) -> dict[str, int]:
    """Return the requests for each of `number` units that only the second run labelled, without the log's: by time."""
    return {kind: round((more[kind] - fewer[kind]) / number) for kind in ("LIST", "GET", "HEAD", "PUT", "DELETE")}


def test_a_shard_of_one_block_which_no_later_plan_or_status_asks_for(bucket, tmp_path):
    labelled, planned = [], []
    for number in (2, 6):
        put_shards(bucket, tmp_path, number)
        labelled.append(requests(bucket, f"in-{number}", f"out-{number}"))
        bucket.requests.clear()
        pipeline = a_pipeline(f"s3://bucket/in-{number}", f"s3://bucket/out-{number}")
        assert raysp.plan(pipeline).todo == ()
        assert raysp.status(pipeline.sink.url, pipeline=pipeline).is_complete
        planned.append(Counter(bucket.requests))
    # Footer, shard, and source columns; the staged block. PUT: the begin of the piece, block, label shard.
    # HEAD: whether recordings were withdrawn.
    assert each(*labelled, 4) == {"LIST": 1, "GET": 4, "HEAD": 1, "PUT": 3, "DELETE": 1}
    assert planned[0] == planned[1]
