"""Rows that `rows="ok"` leaves out of a label shard stay while a footer names them."""

from pathlib import Path

import pyarrow as pa
import pytest

from raysp import gc
from raysp.corpus.shards import Shard
from raysp.sink import footer, layout, orphans, plan_record, run_record
from raysp.sink.label_rows import read_labels, read_rest
from raysp.sink.run_record import RunEntry
from raysp.storage.store import Store
from tests.sink import sinks
from tests.sink.sinks import AT_ONCE, FINGERPRINT, make_shard

SHARD = make_shard()
OTHER, THIRD = "beef", "c0c0"


@pytest.fixture(autouse=True)
def _old_at_once(monkeypatch):
    monkeypatch.setattr(orphans, "REST_SECONDS", AT_ONCE)


def begin(store, fingerprint=FINGERPRINT, *, shards=(SHARD,)) -> None:
    relabel = fingerprint != FINGERPRINT
    parts = {"f": fingerprint}
    entry = RunEntry.now(command=["raysp"])
    run_record.begin(store, entry, pipeline={}, fingerprint=fingerprint, parts=parts, file_parts={}, relabel=relabel)
    plan_record.record(store, shards, supersede=relabel)


def label(store, shard=SHARD, fingerprint=FINGERPRINT) -> None:
    """Stage and commit a shard, with its error and skipped rows left out."""
    sinks.run(store, shard, rows="ok", fingerprint=fingerprint, replace=fingerprint != FINGERPRINT)


def relabel(store, fingerprint) -> None:
    begin(store, fingerprint)
    label(store, fingerprint=fingerprint)


def rows_of(store, shard=SHARD) -> list[int]:
    """List the rows of a label shard and beside it."""
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

    def publish(self, scratch: Path, path: str, **fields) -> bool:
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
    begin(store, OTHER)
    late = LateStore(store, lambda: relabel(store, THIRD))
    label(late, fingerprint=OTHER)
    assert late.was_late
    assert footer.read(store, SHARD.name).fingerprint == THIRD
    assert rows_of(store) == all_rows()


def test_gc_leaves_those_of_a_shard_that_is_not_relabelled_yet(store):
    begin(store)
    label(store)
    begin(store, OTHER)
    gc(store)
    assert rows_of(store) == all_rows()


def test_gc_leaves_those_of_a_shard_that_vanished_while_others_were_relabelled(store):
    second = make_shard("b.parquet")
    begin(store, shards=[SHARD, second])
    label(store)
    label(store, second)
    begin(store, OTHER, shards=[second])
    label(store, second, OTHER)
    gc(store)
    assert rows_of(store) == all_rows()
    assert rows_of(store, second) == all_rows(second)
    assert len(list(store.list(layout.ERRORS))) == 2


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
