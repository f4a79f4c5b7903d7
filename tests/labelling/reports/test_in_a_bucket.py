"""The report of a sink of labels in object storage."""

import pyarrow.parquet as pq
import pytest

import raysp
from tests.corpora import DEMO, a_pipeline, write_shard
from tests.pages import Page


@pytest.mark.slow
def test_a_sink_in_a_bucket_has_its_report_there(tmp_path, s3):
    write_shard(tmp_path / "in" / "a.parquet", table=pq.read_table(min((DEMO / "audio").glob("*.parquet"))).slice(0, 6))
    url = f"s3://{(bucket := s3.bucket())}/out"
    source = raysp.Shards(f"{tmp_path}/in/*.parquet", text="text")
    pipeline = a_pipeline(source, raysp.Parquet(url, storage_options=s3.options))
    raysp.run(pipeline, engine="here", progress=False)
    assert raysp.report(url, pipeline=pipeline) == f"{url}/.raysp/report.html"
    files = s3.download(bucket, tmp_path / "bucket")
    page = Page(files["out/.raysp/report.html"].decode())
    assert page.after("rows") == "6 of 6 rows committed (100%)"
    assert page.after("WER").startswith("0.00%")
