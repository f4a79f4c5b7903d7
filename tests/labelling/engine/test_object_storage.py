"""Whole runs from object storage to object storage, by the command line, as a user has them."""

import json

import pytest

import raysp
from tests import kit
from tests.runs import CHECKPOINT, row_hash

pytestmark = [pytest.mark.drivers, pytest.mark.slow]
VARIABLE = "RAYSP_TEST_SECRET"


def test_labels_on_object_storage_equal_those_on_disk_and_contain_no_secret(s3, make_pipeline, small_shards, tmp_path):
    bucket = s3.bucket()
    s3.upload(small_shards, bucket, "in/")
    s3.upload(CHECKPOINT, bucket, "models/digits/")
    options = {"storage_options": {"key": s3.key, "secret": raysp.Env(VARIABLE), "endpoint_url": s3.endpoint}}
    pipeline = raysp.Pipeline(
        raysp.Shards(f"s3://{bucket}/in/*.parquet", **options),
        steps=[raysp.Decode(), raysp.Label(f"s3://{bucket}/models/digits", outputs=[raysp.Transcript()])],
        sink=raysp.Parquet(f"s3://{bucket}/labels", keep=["speaker_id"], **options),
    )
    file = kit.pipeline_file(tmp_path / "s3_recipe.py", pipeline)
    keys = {"AWS_ENDPOINT_URL": s3.endpoint, "AWS_ACCESS_KEY_ID": s3.key, "AWS_SECRET_ACCESS_KEY": s3.secret}
    keys |= {VARIABLE: s3.secret, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    ran = kit.run_apart(["run", file], **keys)
    assert ran.code == 0, ran.err
    stored = s3.download(bucket, tmp_path / "bucket")
    on_disk = make_pipeline(small_shards, sink="disk", sink_options={"keep": ["speaker_id"]})
    raysp.run(on_disk, engine="here", progress=False)
    assert row_hash(tmp_path / "bucket" / "labels") == row_hash(tmp_path / "disk")
    record = json.loads(stored["labels/.raysp/run.json"])
    assert record["fingerprint"] == json.loads((tmp_path / "disk" / ".raysp" / "run.json").read_text())["fingerprint"]
    assert not [key for key in stored if "/.raysp/stage/" in key or "/.raysp/tmp/" in key]

    # What was recorded names the variable. The bucket's own inputs aside, no byte of it holds what stands in it.
    assert record["pipeline"]["sink"]["storage_options"]["secret"] == {"type": "Env", "name": VARIABLE}
    again = kit.run_apart(["run", file, "--json"], **keys)
    assert (again.code, json.loads(again.out)["rows"], json.loads(again.out)["shards_before"]) == (0, 0, 6), again.err
    status = kit.run_apart(["status", f"s3://{bucket}/labels", "--json"], **keys)
    assert (status.code, json.loads(status.out)["rows_committed"]) == (0, 120), status.err
    written = [data for key, data in stored.items() if key.startswith("labels/")]
    assert len(written) >= 6 + 4  # label shards, and at least record, plan, log and lease
    for data in [*written, *(text.encode() for one in (ran, again, status) for text in (one.out, one.err))]:
        assert s3.secret.encode() not in data
