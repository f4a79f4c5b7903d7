"""Exports from and to object storage."""

import shutil
from typing import Any

import pytest

import raysp
from tests.by_promise.export.sinks import WORDS, make_folder_sink
from tests.corpora import a_pipeline
from tests.exports import exported


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


@pytest.mark.slow
@pytest.mark.parametrize("to", ["srt", "ctm", "dataset"])
def test_files_that_were_edited_or_deleted_are_noticed(s3, made, tmp_path, to):
    bucket = s3.bucket()

    def again() -> tuple[Any, dict[str, bytes]]:
        dest = f"s3://{bucket}/x"
        found = raysp.export(str(made / "out"), to=to, dest=dest, dest_options=s3.options, trust=True)
        shutil.rmtree(tmp_path / "copy", ignore_errors=True)
        s3.download(bucket, tmp_path / "copy")
        return found, {name: data for name, data in exported(tmp_path / "copy" / "x").items() if name != "README.md"}

    before = again()[1]
    name = min(before)
    (tmp_path / "edited" / name).parent.mkdir(parents=True)
    (tmp_path / "edited" / name).write_bytes(before[name][:-1])
    s3.upload(tmp_path / "edited", bucket, "x/")
    found, after = again()
    assert (found.kept, found.rewritten) == ((1, 0) if to == "srt" else (0, 1))
    assert after == ({**before, name: before[name][:-1]} if to == "srt" else before)
    s3.client.delete_object(Bucket=bucket, Key=f"x/{name}")
    found, after = again()
    assert (found.kept, found.rewritten, after) == (0, 1, before)
