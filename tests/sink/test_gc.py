"""`gc`: leftovers of killed and late runs are removed, and nothing that is used."""

import os
import time

import pytest

import raysp
from raysp import PlanError, gc
from raysp.sink import layout, lease, orphans, plan_record, run_record
from raysp.sink.run_record import RunEntry
from raysp.storage.stores import open_store
from tests import kit
from tests.sink import sinks
from tests.sink.sinks import AT_ONCE, FINGERPRINT, INPUT_ID, make_shard

SHARD, OPEN = make_shard(), make_shard("open.parquet")


def begin(store) -> None:
    """Record a run over two shards, and commit the first."""
    entry = RunEntry.now(command=["raysp"])
    run_record.begin(store, run_record.RunRecord(entry.started, {}, FINGERPRINT, {"f": FINGERPRINT}, {}, (entry,)))
    plan_record.record(store, [SHARD, OPEN])
    sinks.run(store, SHARD, rows="ok")


@pytest.fixture
def littered(store, monkeypatch) -> set[str]:
    """Add everything that killed and late processes leave to a sink; return what is no longer used."""
    monkeypatch.setattr(orphans, "REST_SECONDS", AT_ONCE)
    begin(store)
    sinks.stage_piece(store, OPEN, OPEN.pieces[0])
    useful = {entry.path for entry in store.list()}
    store.create(".raysp/tmp/0123", b"half a shard")
    sinks.stage_piece(store, SHARD, SHARD.pieces[0])
    sinks.stage_piece(store, OPEN, OPEN.pieces[0], fingerprint="beef")
    store.create(layout.errors_path(SHARD.name, INPUT_ID, FINGERPRINT, "77"), b"old")
    return {entry.path for entry in store.list()} - useful


def test_it_removes_only_unused_files_and_a_dry_run_lists_them(store, littered):
    before = {entry.path for entry in store.list()}
    listed = gc(store, dry_run=True)
    assert ({orphan.path for orphan in listed.orphans}, listed.removed) == (littered, False)
    assert all(orphan.reason for orphan in listed.orphans)
    assert {entry.path for entry in store.list()} == before
    cleaning = gc(store)
    assert ({orphan.path for orphan in cleaning.orphans}, cleaning.removed) == (littered, True)
    assert cleaning.num_bytes > 0
    assert before - {entry.path for entry in store.list()} == littered
    assert gc(store).orphans == ()


@pytest.mark.parametrize("dry_run", [False, True])
def test_it_refuses_while_a_living_run_is_at_work(store, littered, monkeypatch, dry_run):
    monkeypatch.setenv(lease.BEAT_VARIABLE, "0.1")
    with lease.held(store), pytest.raises(PlanError, match="is running on this sink"):
        gc(store, dry_run=dry_run)
    assert littered <= {entry.path for entry in store.list()}


def test_uploads_that_were_killed_long_ago_are_listed_and_aborted(s3, monkeypatch):
    bucket = s3.bucket()
    store = open_store(s3.url(bucket, "labels"), s3.options)
    begin(store)
    for key in (f"labels/{SHARD.name}", "beside the sink"):
        s3.client.create_multipart_upload(Bucket=bucket, Key=key)
    monkeypatch.setattr(orphans, "UPLOAD_SECONDS", 0.0)
    for dry_run in (True, False):
        [orphan] = gc(store, dry_run=dry_run).orphans
        assert orphan.path.startswith(f"{SHARD.name}?uploadId=")
        assert orphan.reason == "an incomplete upload"
    left = s3.client.list_multipart_uploads(Bucket=bucket).get("Uploads") or ()
    assert [one["Key"] for one in left] == ["beside the sink"]
    assert gc(store).orphans == ()


def test_files_of_a_try_out_that_no_longer_writes_are_removed(tmp_path):
    out = tmp_path / "out"
    raysp.run(kit.corpus(tmp_path / "in", 1).pipeline(out), engine="here", progress=False)
    beats = [f"{layout.TRIAL}{name}/{layout.lease_path(1)}" for name in ("killed", "active")]
    rows = [f"{layout.TRIAL}{name}/part.parquet" for name in ("killed", "active")]
    for path in (*rows, *beats):
        open_store(str(out)).create(path, b"x")
    long_ago = time.time() - 25 * 3600
    for path in (*rows, beats[0]):
        os.utime(out / path, (long_ago, long_ago))
    assert kit.run(["gc", out]).code == 0
    assert [(out / path).exists() for path in (*rows, *beats)] == [False, True, False, True]
