"""Rows that `rows="ok"` leaves out of a label shard stay while a footer names them."""

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from raysp import gc
from raysp.corpus.shards import Shard
from raysp.sink import footer, layout, orphans, plan_record, run_record
from raysp.sink.commit import LabelShard, Todo, committed
from raysp.sink.label_rows import read_labels, read_rest
from raysp.sink.receipts import ShardReceipt
from raysp.sink.recommitting import recommit, retry_whole
from raysp.sink.run_record import RunEntry
from raysp.storage.store import Entry, Store
from tests.sink import sinks
from tests.sink.sinks import AT_ONCE, FINGERPRINT, make_shard

SHARD = make_shard()
OTHER, THIRD = (replace(SHARD, input_id=input_id) for input_id in ("beef", "c0c0"))
"""The shard with other content."""


@pytest.fixture(autouse=True)
def _old_at_once(monkeypatch):
    monkeypatch.setattr(orphans, "REST_SECONDS", AT_ONCE)


def begin(store, *shards) -> None:
    entry = RunEntry.now(command=["raysp"])
    parts = {"f": FINGERPRINT}
    run_record.begin(store, run_record.RunRecord(entry.started, {}, FINGERPRINT, parts, {}, (entry,)))
    plan_record.record(store, shards or [SHARD], supersede=True)


def label(store, shard=SHARD) -> None:
    """Stage and commit a shard, with its error and skipped rows left out."""
    sinks.run(store, shard, rows="ok")


def attempt(store, shard) -> Todo:
    """Begin to label a shard again, and stage its results."""
    begin(store, shard)
    todo = retry_whole(store, shard)
    for piece in shard.pieces:
        sinks.stage_piece(store, shard, piece, todo.retry.stage_id)
    return todo


def finish(store, todo: Todo) -> ShardReceipt:
    label_shard = LabelShard(todo.shard, FINGERPRINT, sinks.source_columns, sinks.OUTPUTS, rows="ok")
    return recommit(store, label_shard, todo.retry)


def again(store, shard) -> None:
    finish(store, attempt(store, shard))


def rows_of(store, shard=SHARD) -> list[int]:
    """List the rows of a label shard and beside it."""
    shard = replace(shard, input_id=footer.read(store, shard.name).receipt.input_id)
    tables = [*read_labels(store, shard, ["row"]), *(table.select(["row"]) for table in read_rest(store, shard))]
    return sorted(pa.concat_tables(tables).column("row").to_pylist())


def all_rows(shard: Shard = SHARD) -> list[int]:
    return list(range(shard.num_rows))


class LateStore:
    """A store as a worker sees it that is held up right before or after it makes a label shard visible."""

    def __init__(self, store: Store, meanwhile, *, before: bool = False) -> None:
        self._store, self._meanwhile, self._before, self.was_late = store, meanwhile, before, False

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    def publish(self, scratch: Path, path: str, **fields) -> Entry | None:
        if path != SHARD.name or self.was_late:
            return self._store.publish(scratch, path, **fields)
        self.was_late = True
        if self._before:
            written = scratch.read_bytes()
            self._meanwhile()
            scratch.parent.mkdir(parents=True, exist_ok=True)
            scratch.write_bytes(written)  # gc removes it from a folder, and cannot from a worker's own disk
            return self._store.publish(scratch, path, **fields)
        published = self._store.publish(scratch, path, **fields)
        self._meanwhile()
        return published


def test_a_late_worker_that_has_replaced_a_label_shard_leaves_those_of_a_later_one(store):
    begin(store)
    label(store)
    late = LateStore(store, lambda: again(store, THIRD))
    receipt = finish(late, attempt(store, OTHER))
    assert late.was_late
    assert footer.read(store, SHARD.name).receipt.input_id == THIRD.input_id
    assert rows_of(store) == all_rows()
    sinks.log(store, receipt)  # it is not of the label shard that is there now
    assert committed(store, [OTHER], FINGERPRINT)[0] == set()
    assert committed(store, [THIRD], FINGERPRINT)[0] == {SHARD.name}


def test_gc_leaves_those_of_a_label_shard_that_no_plan_names(store):
    begin(store)
    label(store)
    for entry in list(store.list(layout.PLAN)):
        store.delete(entry.path)
    gc(store)
    assert rows_of(store) == all_rows()


def test_gc_leaves_all_beside_a_label_shard_that_cannot_be_read(store):
    begin(store)
    label(store)
    before = list(store.list(layout.ERRORS))
    store.replace(SHARD.name, b"damaged")
    gc(store)
    assert list(store.list(layout.ERRORS)) == before


def test_gc_leaves_those_that_a_commit_is_about_to_name(store, monkeypatch):
    monkeypatch.setattr(orphans, "REST_SECONDS", 3600.0)
    begin(store)
    late = LateStore(store, lambda: gc(store), before=True)
    label(late)
    assert late.was_late
    assert rows_of(store) == all_rows()
