"""Whole runs from Google Cloud Storage and Azure to the same, and kills of them at random moments."""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

import raysp
from tests.clouds.cloud import CLOUDS, Cloud
from tests.places import options_code
from tests.runs import CHECKPOINT, row_hash

pytestmark = [pytest.mark.cluster, pytest.mark.drivers, pytest.mark.slow]

MOST_KILLS, MOST_SECONDS = 3, 8
PIPELINE = """
import raysp

options = {options}
pipeline = raysp.Pipeline(
    source=raysp.Shards("{root}/in/*.parquet", storage_options=options),
    steps=[raysp.Decode(), raysp.Label("{root}/models/digits", outputs=[raysp.Transcript()])],
    sink=raysp.Parquet("{root}/labels", keep=["speaker_id"], storage_options=options),
)
"""


@pytest.fixture(params=[*CLOUDS])
def cloud(request) -> Cloud:
    return request.getfixturevalue(CLOUDS[request.param])


@pytest.fixture
def bucket(cloud, small_shards) -> str:
    """A bucket with shards and a checkpoint."""
    bucket = cloud.bucket()
    cloud.upload(small_shards, bucket, "in/")
    cloud.upload(CHECKPOINT, bucket, "models/digits/")
    return bucket


@pytest.fixture
def recipe(cloud, bucket, tmp_path) -> Path:
    file = tmp_path / "recipe_of_a_cloud.py"
    file.write_text(PIPELINE.format(root=cloud.url(bucket), options=options_code(cloud.options)))
    return file


def start(tmp_path: Path, *arguments: str, address: str = "") -> subprocess.Popen[str]:
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache"), "RAY_ADDRESS": address}
    command = [sys.executable, "-m", "raysp.cli", *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, said = process.communicate(timeout=300)
    return process.returncode, out, said


def wait_for_a_write(cloud: Cloud, bucket: str, run: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 240
    while not cloud.marks(bucket, "labels/"):
        assert run.poll() is None, run.communicate()[1]
        assert time.monotonic() < deadline, "nothing was written"
        time.sleep(0.05)


def assert_labels_equal_those_on_disk(cloud, bucket, make_pipeline, small_shards, tmp_path) -> dict[str, bytes]:
    stored = cloud.download(bucket, tmp_path / "bucket")
    raysp.run(
        make_pipeline(small_shards, sink="disk", sink_options={"keep": ["speaker_id"]}), engine="here", progress=False
    )
    assert row_hash(tmp_path / "bucket" / "labels") == row_hash(tmp_path / "disk")
    assert not [key for key in stored if "/.raysp/stage/" in key or "/.raysp/tmp/" in key]
    return stored


def test_labels_equal_those_on_disk_and_contain_no_secret(cloud, bucket, recipe, make_pipeline, small_shards, tmp_path):
    code, out, said = finish(start(tmp_path, "run", str(recipe)))
    assert code == 0, said
    stored = assert_labels_equal_those_on_disk(cloud, bucket, make_pipeline, small_shards, tmp_path)
    written = [data for key, data in stored.items() if key.startswith("labels/")]
    assert len(written) >= 6 + 4  # label shards, and at least record, plan, log and lease
    for data in [*written, out.encode(), said.encode()]:
        assert not cloud.secret or cloud.secret.encode() not in data

    code, out, said = finish(start(tmp_path, "run", str(recipe), "--json"))
    assert code == 0, said
    assert (json.loads(out)["rows"], json.loads(out)["shards_before"]) == (0, 6)
    sink = cloud.url(bucket, "labels")
    assert raysp.gc(sink, cloud.options).orphans == ()
    assert raysp.verify(sink, cloud.options, trust=True).differences == ()
    assert raysp.status(sink, cloud.options).rows_committed == 120


@pytest.mark.soak  # `test_protocol.py` kills one run on each cloud, at a chosen moment
@pytest.mark.parametrize("seed", range(8))
def test_a_run_killed_at_random_moments_gives_the_same_rows_when_run_again(
    cloud, bucket, recipe, make_pipeline, small_shards, tmp_path, seed
):
    chance, kills = random.Random(f"{cloud.kind} {seed}"), 0
    ended = None
    while ended is None and kills < MOST_KILLS:
        run = start(tmp_path, "run", str(recipe))
        if not kills:  # however fast the machine is, one kill is during the run
            wait_for_a_write(cloud, bucket, run)
        time.sleep(chance.uniform(0, MOST_SECONDS if kills else 0.3))
        ended = run.poll()
        run.kill()
        _, _, said = finish(run)
        assert ended in (0, None), said
        kills += ended is None
    assert kills
    seen = cloud.marks(bucket, "labels/part-")
    code, _, said = finish(start(tmp_path, "run", str(recipe)))
    assert code == 0, said
    after = cloud.marks(bucket, "labels/part-")
    assert {key: after[key] for key in seen} == seen
    assert len(after) == 6
    assert_labels_equal_those_on_disk(cloud, bucket, make_pipeline, small_shards, tmp_path)
