"""Exports from and to object storage."""

import pytest

import raysp
from tests.by_promise.export.sinks import WORDS, exported, make_folder_sink
from tests.corpora import a_pipeline


@pytest.mark.slow
def test_subtitles_stand_beside_recordings_of_a_bucket_and_none_is_replaced(s3, tmp_path):
    bucket = s3.bucket()
    make_folder_sink(tmp_path, ["talks/rec 48.wav", "x.wav", "y.wav"])
    (tmp_path / "in" / "x.srt").write_bytes(b"by hand")
    s3.upload(tmp_path / "in", bucket, "in/")
    source = raysp.Shards(f"s3://{bucket}/in", storage_options=s3.options)
    raysp.run(a_pipeline(source, f"{tmp_path}/labels", label={"outputs": [WORDS]}), engine="here", progress=False)
    for _ in range(2):
        found = raysp.export(f"{tmp_path}/labels", to="srt", beside=True, trust=True)
        assert (found.rows, found.kept, found.first_kept) == (3, 1, "x.srt")
    s3.download(bucket, tmp_path / "copy")
    files = exported(tmp_path / "copy" / "in")
    assert sorted(files) == ["talks/rec 48.srt", "talks/rec 48.wav", "x.srt", "x.wav", "y.srt", "y.wav"]
    assert files["x.srt"] == b"by hand"


@pytest.mark.slow
def test_a_sink_in_a_bucket_is_exported_to_it_with_the_same_options(s3, long, tmp_path):
    bucket = s3.bucket()
    s3.upload(long / "out", bucket, "out/")
    with pytest.raises(raysp.PlanError, match="is in the same folder as the sink"):
        raysp.export(f"s3://{bucket}/out", "jsonl", f"s3://{bucket}/out/x", s3.options)
    found = raysp.export(f"s3://{bucket}/out", "jsonl", f"s3://{bucket}/json", s3.options)
    raysp.export(str(long / "out"), to="jsonl", dest=str(tmp_path / "local"))
    s3.download(bucket, tmp_path / "copy")
    assert exported(tmp_path / "copy" / "json") == exported(tmp_path / "local")
    assert found.rows == 3
