"""`gc`: leftovers of killed and late runs are removed, and nothing that is used."""

import os
import time
from pathlib import Path

import pytest

import raysp
from raysp.sink import orphans
from tests import kit

LONG_AGO = time.time() - 25 * 3600


def files(sink: Path) -> set[str]:
    return {path.relative_to(sink).as_posix() for path in sink.rglob("*") if path.is_file()}


@pytest.fixture
def sink(tmp_path) -> Path:
    """A sink of two label shards, of which one is not committed, but staged."""
    corpus = kit.corpus(tmp_path / "in", rows=5, faults=["not_audio"], shards=2)
    pipeline = corpus.pipeline(raysp.Parquet(f"{tmp_path}/out", rows="ok"))
    raysp.run(pipeline, engine="here", progress=False)
    (tmp_path / "out" / "part-0.parquet").unlink()
    kit.interrupted(pipeline)
    return tmp_path / "out"


@pytest.fixture
def litter(sink) -> set[str]:
    """Files of killed and late processes."""
    [staged] = (name for name in files(sink) if name.startswith(".raysp/stage/"))
    [rest] = (name for name in files(sink) if name.startswith(".raysp/errors/"))
    left = {
        ".raysp/tmp/0123",
        staged.replace("part-0", "part-1"),
        f"{staged.rsplit('.', 2)[0]}.beef.1",
        f"{rest.rsplit('.', 2)[0]}.77.arrow",
        ".raysp/trial/killed/part.parquet",
        ".raysp/trial/killed/.raysp/lease/00000001",
    }
    for name in left:
        (sink / name).parent.mkdir(parents=True, exist_ok=True)
        (sink / name).write_bytes(b"x")
        os.utime(sink / name, (LONG_AGO, LONG_AGO))
    return left


def test_it_removes_only_unused_files_and_a_dry_run_lists_them(sink, litter):
    for name in ("part.parquet", ".raysp/lease/00000001"):  # of a try-out whose rows are old and whose beat is not
        (sink / ".raysp/trial/active" / name).parent.mkdir(parents=True, exist_ok=True)
        (sink / ".raysp/trial/active" / name).write_bytes(b"x")
    os.utime(sink / ".raysp/trial/active/part.parquet", (LONG_AGO, LONG_AGO))
    young = next(name for name in litter if name.startswith(".raysp/errors/")).replace(".77", ".78")
    (sink / young).write_bytes(b"of a commit that is about to name it")
    before = files(sink)
    listed = raysp.gc(str(sink), dry_run=True)
    assert ({orphan.path for orphan in listed.orphans}, listed.removed) == (litter, False)
    assert all(orphan.reason for orphan in listed.orphans)
    assert files(sink) == before
    cleaning = raysp.gc(str(sink))
    assert ({orphan.path for orphan in cleaning.orphans}, cleaning.removed) == (litter, True)
    assert cleaning.num_bytes == len(litter)
    left = files(sink)
    assert {name for name in before - left if not name.startswith(".raysp/lease/")} == litter
    assert raysp.gc(str(sink)).orphans == ()


def test_it_refuses_while_a_living_run_is_at_work(tmp_path, monkeypatch):
    monkeypatch.setenv("RAYSP_BEAT_SECONDS", "0.3")
    looks = []

    def clean(_: object) -> None:
        for dry_run in (True, False):
            with pytest.raises(raysp.PlanError, match="is running on this sink"):
                raysp.gc(str(tmp_path / "out"), dry_run=dry_run)
            looks.append(dry_run)

    pipeline = kit.corpus(tmp_path / "in", rows=1).pipeline(tmp_path / "out")
    raysp.run(pipeline, engine="here", progress=False, on_progress=clean)
    assert looks
    assert [row["status"] for row in kit.rows(tmp_path / "out")] == ["ok"]


def test_uploads_that_were_killed_long_ago_are_listed_and_aborted(s3, tmp_path, monkeypatch):
    # An object store dates an upload by its own clock.
    monkeypatch.setattr(orphans, "UPLOAD_SECONDS", 0.0)
    bucket = s3.bucket()
    url = s3.url(bucket, "labels")
    pipeline = kit.corpus(tmp_path / "in", rows=1).pipeline(raysp.Parquet(url, storage_options=s3.options))
    raysp.run(pipeline, engine="here", progress=False)
    for key in ("labels/part-0.parquet", "beside the sink"):
        s3.client.create_multipart_upload(Bucket=bucket, Key=key)
    for dry_run in (True, False):
        [orphan] = raysp.gc(url, s3.options, dry_run=dry_run).orphans
        assert orphan.path.startswith("part-0.parquet?uploadId=")
        assert orphan.reason == "an incomplete upload"
    left = s3.client.list_multipart_uploads(Bucket=bucket).get("Uploads") or ()
    assert [one["Key"] for one in left] == ["beside the sink"]
    assert raysp.gc(url, s3.options).orphans == ()
