"""The pipeline of an overlay with a store of one's own, run against a server of S3 with the keys of its secret."""

import json

import pytest

from tests.corpora import CHECKPOINT, write_shard
from tests.kit import run
from tests.kubernetes.manifests import KUBERNETES


@pytest.mark.slow
def test_the_pipeline_of_a_store_of_ones_own_labels_with_the_keys_of_its_secret(s3, tmp_path):
    bucket = s3.bucket()
    s3.upload(CHECKPOINT, bucket, "demo/unispeech-digits-ctc/")
    write_shard(tmp_path / "in" / "0.parquet")
    s3.upload(tmp_path / "in", bucket, "demo/audio/")
    settings = [f"{of}.storage_options.endpoint_url={s3.endpoint}" for of in ("source", "sink")]
    places = {
        "source.url": "demo/audio/*.parquet",
        "steps.1.checkpoint": "demo/unispeech-digits-ctc",
        "sink.url": "first",
    }
    settings += [f"{of}=s3://{bucket}/{place}" for of, place in places.items()]
    line = ["run", KUBERNETES / "overlays/kind/label.py", "--json", *(f"--set={one}" for one in settings)]
    ran = run(line, STORAGE_KEY=s3.key, STORAGE_SECRET=s3.secret)
    assert ran.code == 0, ran.err
    result = json.loads(ran.out)
    assert (result["rows"], result["errors"]) == (3, {})
