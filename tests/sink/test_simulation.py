"""Thousands of histories of the commit protocol; and that histories find bugs, by planting some."""

import gc
import logging
import os
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
import simulation
from simulation import ROWS, ViolationError, simulate

from raysp.planning import Todo
from raysp.sink import commit as commit_module
from raysp.sink import layout, stage
from raysp.sink.commit import Committed

WITHIN = 400
"""Seeds in which a planted bug must be found; each is found within a tenth of them, or a few tenths."""
WORTH = (
    " dies ",
    "relabelled",
    "create .raysp/stage",
    "create .raysp/lease",
    "somebody removes",
    "replace a.parquet",
)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Give scratch files a place in memory where there is one; watching a lease is nothing to warn of here."""
    logging.getLogger("raysp.sink.lease").setLevel(logging.ERROR)
    gc.collect()
    gc.freeze()  # what other tests left is not looked through again with every history
    threshold = gc.get_threshold()
    gc.set_threshold(50_000, 20, 100)
    yield Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else tmp_path
    gc.set_threshold(*threshold)
    gc.unfreeze()
    logging.getLogger("raysp.sink.lease").setLevel(logging.NOTSET)


@pytest.mark.parametrize(
    "seeds",
    [pytest.param(range(500), id="500"), pytest.param(range(500, 5000), id="5000", marks=pytest.mark.soak)],
)
def test_no_history_loses_doubles_or_mixes_rows(folder, seeds):
    seen: Counter[str] = Counter()
    for seed in seeds:
        told = "\n".join(simulate(seed, folder).story)
        seen.update({word: told.count(word) for word in WORTH})
    # The histories must be worth something: deaths and failures, late ones, relabellings, retries.
    assert seen[" dies "] > len(seeds) / 2
    assert all(seen[word] for word in WORTH), seen


def test_a_history_follows_from_its_seed(folder):
    for seed in range(30):
        assert simulate(seed, folder).story == simulate(seed, folder).story


def committing_what_is_there(monkeypatch):
    """A shard is committed as soon as a block of it is staged, with the rows that are there."""
    compare = simulation.opening.compare

    def with_too_little(store, shards, *args, **kwargs):
        done, todo = compare(store, shards, *args, **kwargs)
        begun = {block.shard for e in store.list(layout.STAGE) if (block := layout.parse_stage_path(e.path))}
        return done, tuple(Todo(one.shard, ()) if one.shard.name in begun else one for one in todo)

    def rows_that_are_there(store, label_shard):
        shard = label_shard.shard
        for piece in shard.pieces:
            staged = [
                stage._read_block(store, name)
                for name in stage._names(store, shard.name, piece, shard.input_id, label_shard.fingerprint)
            ]
            table = pa.concat_tables(staged) if staged else simulation.STAGED.empty_table()
            source = label_shard.source_columns(piece)
            table = table.take(pa.compute.sort_indices(table.column("row")))
            source = source.take([row - piece.first for row in table.column("row").to_pylist()])
            yield pa.Table.from_arrays([*source.columns, *table.columns], names=["id", *table.schema.names])

    def receipt(tally, shard):
        return commit_module.ShardReceipt(shard.name, tally.rows, tally.by_status["ok"], 0, tally.by_status["error"])

    monkeypatch.setattr(simulation.opening, "compare", with_too_little)
    monkeypatch.setattr(commit_module, "_tables", rows_that_are_there)
    monkeypatch.setattr(commit_module.Tally, "receipt", receipt)


def replacing_what_is_committed(monkeypatch):
    """A label shard is put in place unconditionally."""
    publish = simulation.Store.publish
    monkeypatch.setattr(
        simulation.Store,
        "publish",
        lambda self, scratch, path, replace=False: publish(self, scratch, path, replace=True),
    )


def trusting_any_marker_of_a_shard(monkeypatch):
    """A marker counts, whatever input and pipeline it is of, and whether or not its label shard is there."""

    def committed(store, shards, fingerprint, *, mend=True, file_id="", trust=True):
        markers = {layout.parse_done_path(entry.path) for entry in store.list(layout.DONE)}
        return Committed(frozenset(s.name for s in shards if s.name in {name for name, *_ in markers}), {})

    monkeypatch.setattr(commit_module, "committed", committed)


def trusting_markers_after_a_relabelling(monkeypatch):
    """A marker of this very input and pipeline counts, though its label shard may have been replaced since."""
    committed, listed = commit_module.committed, commit_module._list
    monkeypatch.setattr(commit_module, "committed", lambda *a, **fields: committed(*a, **{**fields, "trust": True}))
    monkeypatch.setattr(commit_module, "_list", lambda store: (*listed(store)[:2], False))


def leaving_markers_when_replacing(monkeypatch):
    """A -> B -> A: and the markers of A are there from the first time, and trusted."""
    trusting_markers_after_a_relabelling(monkeypatch)
    monkeypatch.setattr(commit_module, "_prepare_to_replace", lambda store, label_shard: None)


def removing_the_stage_before_the_commit(monkeypatch):
    """What is staged is thrown away before the label shard that is made of it can be seen."""
    write = commit_module.write

    def write_too_late(store, label_shard, tables):
        read = list(tables)
        stage.remove(store, label_shard.shard.name)
        return write(store, label_shard, iter(read))

    monkeypatch.setattr(commit_module, "write", write_too_late)


def resuming_with_blocks_of_another_pipeline(monkeypatch):
    """A piece counts as staged when blocks of any input and pipeline are."""

    def staged_as(store, wanted):
        found = {}
        for entry in store.list(layout.STAGE):
            if block := layout.parse_stage_path(entry.path):
                found.setdefault(block.shard, {}).setdefault(block.piece, set()).add((block.k, block.of))
        return found

    monkeypatch.setattr(stage, "staged_as", staged_as)


def resuming_with_blocks_of_another_cut(monkeypatch):
    """A piece counts as staged when there are enough blocks, of whatever cuts, and those are put together."""

    def complete_cut(blocks):
        there = set(blocks)
        return next((of for _, of in sorted(there) if len(there) >= of), None)

    monkeypatch.setattr(stage, "_complete_cut", complete_cut)


BUGS = [
    committing_what_is_there,
    replacing_what_is_committed,
    trusting_any_marker_of_a_shard,
    leaving_markers_when_replacing,
    removing_the_stage_before_the_commit,
    resuming_with_blocks_of_another_pipeline,
    resuming_with_blocks_of_another_cut,
]


@pytest.mark.parametrize("plant", BUGS, ids=[bug.__name__ for bug in BUGS])
def test_a_planted_bug_is_found(folder, monkeypatch, plant):
    plant(monkeypatch)
    for seed in range(WITHIN):
        try:
            simulate(seed, folder)
        except ViolationError:
            return
    pytest.fail(f"{plant.__name__} was not found within {WITHIN} seeds")


def test_a_row_that_is_missing_doubled_or_foreign_is_told():
    rows = [
        {"id": f"1:{row}", "row": row, "status": "ok", "text": simulation.label("a", "1", "f", row)}
        for row in range(ROWS)
    ]
    assert simulation.wrong_rows("a", rows, "1", "f") == ""
    assert simulation.wrong_rows("a", rows[1:], "1", "f") == "rows [1, 2, 3]"
    assert simulation.wrong_rows("a", [*rows, rows[0]], "1", "f") == "rows [0, 0, 1, 2, 3]"
    assert "not 'a 1 g 0'" in simulation.wrong_rows("a", rows, "1", "g")
