"""Exports from and to object storage."""

import itertools

import pytest

import raysp
from tests.corpora import a_pipeline
from tests.verbs.export.sinks import WORDS, content, exported, make_folder_sink


def downloaded(s3, bucket: str, folder) -> dict[str, bytes]:
    s3.download(bucket, folder)
    return content(folder)


@pytest.mark.slow
def test_files_are_named_as_recordings_of_a_bucket(s3, tmp_path):
    bucket = s3.bucket()
    make_folder_sink(tmp_path, ["2024/Interviews/rec 48.wav", "x.wav"])
    s3.upload(tmp_path / "in", bucket, "in/")
    source = raysp.Shards(f"s3://{bucket}/in", storage_options=s3.options)
    raysp.run(a_pipeline(source, f"{tmp_path}/labels", label={"outputs": [WORDS]}), engine="here", progress=False)
    raysp.export(f"{tmp_path}/labels", to="srt", dest=f"s3://{bucket}/srt", dest_options=s3.options)
    s3.download(bucket, tmp_path / "copy")
    assert sorted(exported(tmp_path / "copy" / "srt")) == ["2024/Interviews/rec 48.srt", "x.srt"]


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
def test_an_export_that_ends_at_any_request_gives_the_same_files(s3, proxy, long, tmp_path):
    raysp.export(str(long / "out"), to="jsonl", dest=str(tmp_path / "local"))
    expected = content(tmp_path / "local")

    def exported_until(number: int, bucket: str) -> int:
        """Export until a change is refused, as are those after it; return the number of changes."""
        changes = itertools.count(1)
        proxy.judge = lambda method, path: (
            "403 AccessDenied" if method in ("PUT", "POST", "DELETE") and next(changes) >= number else None
        )
        raysp.export(str(long / "out"), to="jsonl", dest=f"s3://{bucket}", dest_options=proxy.options)
        return next(changes) - 1

    num_changes = exported_until(10**9, s3.bucket())
    assert num_changes >= 5
    for number in range(1, num_changes + 1):
        bucket = s3.bucket()
        with pytest.raises(raysp.RayspError, match="AccessDenied"):
            exported_until(number, bucket)
        seen = exported(tmp_path / f"seen {number}") if downloaded(s3, bucket, tmp_path / f"seen {number}") else {}
        assert seen.items() <= expected.items()
        raysp.export(str(long / "out"), to="jsonl", dest=f"s3://{bucket}", dest_options=s3.options)
        assert downloaded(s3, bucket, tmp_path / f"{number}") == expected


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
