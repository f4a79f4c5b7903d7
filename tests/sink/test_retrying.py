"""Label shards that are replaced by retries, whole or row by row, and leftovers of other runs."""

from dataclasses import replace

import pyarrow as pa
import pytest

from raysp import ChangedError, PlanError, gc
from raysp.sink import label_rows, layout, lease, orphans, plan_record, run_record
from raysp.sink.commit import LabelShard, Todo, committed, compare
from raysp.sink.receipts import ShardReceipt
from raysp.sink.recommitting import find_error_rows, recommit, retry_whole
from raysp.sink.run_record import RunEntry
from raysp.storage.store import Store
from raysp.storage.stores import open_store
from tests.sink import sinks
from tests.sink.sinks import AT_ONCE, FINGERPRINT, INPUT_ID, OUTPUTS, make_shard

SHARD = make_shard()
CHANGED = replace(make_shard(cuts=(0, 5)), input_id="0f", version="2")
"""The shard with other content."""
OTHER = "beef"


def begin(store, *shards) -> None:
    entry = RunEntry.now(command=["raysp"])
    parts = {"f": FINGERPRINT}
    run_record.begin(store, run_record.RunRecord(entry.started, {}, FINGERPRINT, parts, {}, (entry,)))
    plan_record.record(store, shards or [SHARD])


def attempt(store, shard=SHARD) -> Todo:
    """Begin to label a shard again, and stage its results."""
    plan_record.record(store, [shard], supersede=True)
    todo = retry_whole(store, shard)
    for piece in shard.pieces:
        sinks.stage_piece(store, shard, piece, todo.retry.stage_id)
    return todo


def again(store, shard=SHARD, **fields) -> ShardReceipt:
    """Label a shard again."""
    return recommit_sample(store, attempt(store, shard), **fields)


def paths(store, prefix) -> list[str]:
    return [entry.path for entry in store.list(prefix)]


class TestWholeShards:
    def test_a_shard_whose_content_changed_is_planned_and_labelled_again(self, store):
        begin(store)
        sinks.run(store, SHARD)
        with pytest.raises(ChangedError, match=r"part 1\.parquet: .*; move it, .* --shard 'a/part 1\.parquet'`"):
            compare(store, [CHANGED], FINGERPRINT)
        again(store, CHANGED)
        assert plan_record.load(store) == [CHANGED]
        assert sinks.labels(store, CHANGED) == sinks.expected(CHANGED)
        assert compare(store, [CHANGED], FINGERPRINT) == ({SHARD.name}, ())
        gc(store)
        assert paths(store, layout.STAGE) == []

    def test_files_not_made_by_raysp_are_never_replaced(self, store):
        store.create(SHARD.name, b"a user's own file")
        with pytest.raises(ChangedError, match="not a label shard of raysp"):
            compare(store, [SHARD], FINGERPRINT)
        with pytest.raises(ChangedError, match="not a label shard of raysp"):
            again(store)
        assert store.read(SHARD.name) == b"a user's own file"

    def test_other_columns_are_another_label_shard(self, store):
        begin(store)
        receipts = sinks.run(store, SHARD, file_id="11")
        for _ in ("footer", "receipt"):
            done, foreign = committed(store, [SHARD], FINGERPRINT, file_id="22")
            assert (done, [*foreign]) == (set(), [SHARD.name])
            assert committed(store, [SHARD], FINGERPRINT, file_id="11")[0] == {SHARD.name}
            sinks.log(store, *receipts)


ERRORS = [row for row in range(SHARD.num_rows) if sinks.status_of(row) == "error"]


def retry(store, rows="all", *, again=()):
    """Do the error rows again: they are ok then, but for some."""
    [todo] = find_error_rows(store, [SHARD], FINGERPRINT)
    stage_retried(store, todo, again)
    return recommit_sample(store, todo, rows=rows)


def stage_retried(store, todo, again=()):
    for piece in todo.pieces:
        sinks.stage_piece(store, SHARD, piece, todo.retry.stage_id, corrected(todo.retry.of(piece), again))


def recommit_sample(store, todo, **fields) -> ShardReceipt:
    return recommit(store, LabelShard(todo.shard, FINGERPRINT, sinks.source_columns, OUTPUTS, **fields), todo.retry)


def after_retry(again=()):
    """Return all rows as they are when the error rows were done again."""
    source = sinks.source_columns(sinks.Piece(0, SHARD.num_rows)).to_pylist()
    done = dict(zip(ERRORS, corrected(ERRORS, again).to_pylist(), strict=True))
    return [{**source[row["row"]], **done[row["row"]]} if row["row"] in done else row for row in sinks.expected(SHARD)]


class TestRetry:
    @pytest.mark.parametrize("num_bytes", [1, 400, 1 << 24])
    @pytest.mark.parametrize("rows", ["all", "ok"])
    def test_error_rows_are_done_again_and_the_others_stay_value_for_value(self, store, rows, num_bytes, monkeypatch):
        monkeypatch.setattr(label_rows, "BYTES_A_BATCH", num_bytes)
        begin(store)
        sinks.run(store, SHARD, rows=rows)
        [todo] = find_error_rows(store, [SHARD], FINGERPRINT)
        assert list(todo.retry.rows) == ERRORS == [3, 10, 17]
        receipt = retry(store, rows)
        assert receipt.counts.by_status == {"ok": 21, "skipped": 2, "error": 0}
        assert sinks.labels(store, SHARD) == [row for row in after_retry() if rows == "all" or row["status"] == "ok"]
        assert sinks.parquet(store, SHARD.name).schema_arrow.remove_metadata() == schema_of(SHARD)
        assert list(find_error_rows(store, [SHARD], FINGERPRINT)) == []
        assert paths(store, layout.STAGE) == []

    @pytest.mark.parametrize("rows", ["all", "ok"])
    def test_a_row_that_fails_again_stays_an_error_row(self, store, rows):
        begin(store)
        sinks.run(store, SHARD, rows=rows)
        retry(store, rows, again=[10])
        [todo] = find_error_rows(store, [SHARD], FINGERPRINT)
        assert todo.retry.rows == (10,)
        if rows == "all":
            assert sinks.labels(store, SHARD) == after_retry(again=[10])


class TestGc:
    @pytest.fixture
    def littered(self, store, monkeypatch) -> set[str]:
        """Add everything that killed and late processes leave to a sink; return what is no longer used."""
        monkeypatch.setattr(orphans, "REST_SECONDS", AT_ONCE)
        open_shard = make_shard("open.parquet")
        begin(store, SHARD, open_shard)
        sinks.run(store, SHARD, rows="ok")
        useful = {entry.path for entry in store.list()}
        sinks.stage_piece(store, open_shard, open_shard.pieces[0])
        useful |= {entry.path for entry in store.list()}
        store.create(".raysp/tmp/0123", b"half a shard")
        sinks.stage_piece(store, SHARD, SHARD.pieces[0])
        sinks.stage_piece(store, open_shard, open_shard.pieces[0], fingerprint=OTHER)
        store.create(layout.errors_path(SHARD.name, INPUT_ID, FINGERPRINT, "77"), b"old")
        return {entry.path for entry in store.list()} - useful

    def test_it_removes_only_unused_files(self, store, littered):
        before = {entry.path for entry in store.list()}
        cleaning = gc(store)
        assert {orphan.path for orphan in cleaning.orphans} == littered
        assert cleaning.removed
        assert cleaning.num_bytes > 0
        assert before - {entry.path for entry in store.list()} == littered
        assert gc(store).orphans == ()

    def test_a_dry_run_lists_the_same_and_writes_nothing(self, store, littered):
        before = list(store.list())
        cleaning = gc(store, dry_run=True)
        assert ({orphan.path for orphan in cleaning.orphans}, cleaning.removed) == (littered, False)
        assert all(orphan.reason for orphan in cleaning.orphans)
        assert list(store.list()) == before

    @pytest.mark.parametrize("dry_run", [False, True])
    def test_it_refuses_while_a_living_run_is_at_work(self, store, littered, monkeypatch, dry_run):
        monkeypatch.setenv(lease.BEAT_VARIABLE, "0.1")
        with lease.held(store), pytest.raises(PlanError, match="is running on this sink"):
            gc(store, dry_run=dry_run)
        assert littered <= {entry.path for entry in store.list()}


class TestUploads:
    """On an object store: leftovers of a run that was killed during the upload of a large label shard."""

    @pytest.fixture
    def begun(self, s3) -> tuple[Store, str]:
        store = open_store(f"s3://{s3.bucket()}/labels", s3.options)
        begin(store)
        sinks.run(store, SHARD)
        bucket = store.url.split("/")[2]
        for key in (f"labels/{SHARD.name}", "beside the sink"):
            s3.client.create_multipart_upload(Bucket=bucket, Key=key)
        return store, bucket

    def test_those_of_long_ago_are_listed_and_aborted(self, s3, begun, monkeypatch):
        store, bucket = begun
        monkeypatch.setattr(orphans, "UPLOAD_SECONDS", 0.0)
        for dry_run in (True, False):
            [orphan] = gc(store, dry_run=dry_run).orphans
            assert orphan.path.startswith(f"{SHARD.name}?uploadId=")
            assert orphan.reason == "an incomplete upload"
        assert uploads(s3, bucket) == ["beside the sink"]
        assert gc(store).orphans == ()


def uploads(s3, bucket) -> list[str]:
    return sorted(one["Key"] for one in s3.client.list_multipart_uploads(Bucket=bucket).get("Uploads") or ())


def corrected(rows, again=()) -> pa.Table:
    table = sinks.results(list(rows), SHARD.name).to_pylist()
    fine = [
        row
        if row["row"] in again
        else {**row, "status": "ok", "seconds": 1.0, "error_type": None, "error_message": None, "pred_text": "mended"}
        for row in table
    ]
    return pa.Table.from_pylist(fine, schema=sinks.results([0]).schema)


def schema_of(shard) -> pa.Schema:
    source = sinks.source_columns(shard.pieces[0]).schema
    return pa.schema([*(field.remove_metadata() for field in source), *sinks.results([0]).schema])
