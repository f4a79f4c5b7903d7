"""Whole runs from object storage to object storage, by the command line, as a user has them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from raysp import run as label
from tests.runs import CHECKPOINT, row_hash

pytestmark = [pytest.mark.cluster, pytest.mark.drivers, pytest.mark.slow]

PIPELINE = """
import raysp

options = {{"key": {key!r}, "secret": raysp.Env("RAYSP_TEST_SECRET"), "endpoint_url": {endpoint!r}}}
pipeline = raysp.Pipeline(
    source=raysp.Shards("s3://{bucket}/in/*.parquet", storage_options=options),
    steps=[raysp.Decode(), raysp.Label("s3://{bucket}/models/digits", outputs=[raysp.Transcript()])],
    sink=raysp.Parquet("s3://{bucket}/labels", keep=["speaker_id"], storage_options=options),
)
"""


@pytest.fixture
def corpus(s3, small_shards, tmp_path):
    """A bucket with shards and a checkpoint, and the pipeline file over it."""
    bucket = s3.bucket()
    s3.upload(small_shards, bucket, "in/")
    s3.upload(CHECKPOINT, bucket, "models/digits/")
    recipe = tmp_path / "s3_recipe.py"
    recipe.write_text(PIPELINE.format(bucket=bucket, key=s3.key, endpoint=s3.endpoint))
    return bucket, recipe


def raysp(s3, tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "AWS_ENDPOINT_URL": s3.endpoint,
        "AWS_ACCESS_KEY_ID": s3.key,
        "AWS_SECRET_ACCESS_KEY": s3.secret,
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }
    command = [sys.executable, "-m", "raysp.cli", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


def test_labels_on_object_storage_equal_those_on_disk_and_contain_no_secret(
    s3, corpus, make_pipeline, small_shards, tmp_path
):
    bucket, recipe = corpus
    ran = raysp(s3, tmp_path, "run", str(recipe))
    assert ran.returncode == 0, ran.stderr
    stored = s3.download(bucket, tmp_path / "bucket")

    label(
        make_pipeline(small_shards, sink="disk", sink_options={"keep": ["speaker_id"]}), engine="here", progress=False
    )
    assert row_hash(tmp_path / "bucket" / "labels") == row_hash(tmp_path / "disk")
    record = json.loads(stored["labels/.raysp/run.json"])
    assert record["fingerprint"] == json.loads((tmp_path / "disk" / ".raysp" / "run.json").read_text())["fingerprint"]
    assert not [key for key in stored if "/.raysp/stage/" in key or "/.raysp/tmp/" in key]

    # What was recorded names the variable. The bucket's own inputs aside, no byte of it holds what stands in it.
    assert record["pipeline"]["sink"]["storage_options"]["secret"] == {"type": "Env", "name": "RAYSP_TEST_SECRET"}
    written = [data for key, data in stored.items() if key.startswith("labels/")]
    assert len(written) >= 6 + 4  # label shards, and at least record, plan, log and lease
    for data in [*written, ran.stdout.encode(), ran.stderr.encode()]:
        assert s3.secret.encode() not in data

    again = raysp(s3, tmp_path, "run", str(recipe), "--json")
    assert again.returncode == 0, again.stderr
    told = json.loads(again.stdout)
    assert (told["rows"], told["shards_before"]) == (0, 6)
    assert s3.secret not in again.stdout + again.stderr

    status = raysp(s3, tmp_path, "status", f"s3://{bucket}/labels", "--json")
    assert status.returncode == 0, status.stderr
    assert json.loads(status.stdout)["rows_committed"] == 120
