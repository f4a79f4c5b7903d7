from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from raysp import RunError, ShardError, StoreError
from raysp.corpus.shards import Piece
from raysp.sink import commit as commit_module
from raysp.sink import layout, stage
from raysp.sink.commit import LabelShard, outcomes
from raysp.sink.receipts import Counts
from raysp.sink.recommitting import commit_staged
from raysp.storage.store import LocalStore
from tests.sink import sinks
from tests.sink.sinks import FINGERPRINT, OUTPUTS, make_shard

SHARD = make_shard()


@pytest.mark.slow
def test_a_commit_holds_about_a_row_group_for_any_size_of_piece(tmp_path, monkeypatch):
    bound, width, frames, num_rows = 1024 * 1024, 64, 1000, 120
    # The real ones would take gigabytes.
    for place, name, value in ((commit_module, "ROW_GROUP_BYTES", bound), (stage, "BATCH_BYTES", bound // 8)):
        monkeypatch.setattr(place, name, value)
    store, shard = LocalStore(tmp_path), make_shard(cuts=(0, num_rows))
    outputs = pa.schema([("embedding", pa.list_(pa.list_(pa.float32(), width)))])

    def frame_embeddings(rows):
        values = pa.array(np.repeat(np.array(rows, np.float32), frames * width))
        vectors = pa.FixedSizeListArray.from_arrays(values, width)
        offsets = pa.array(np.arange(len(rows) + 1) * frames, pa.int32())
        return pa.ListArray.from_arrays(offsets, vectors).cast(outputs.field(0).type)

    rows = list(range(num_rows))
    table = sinks.results(rows, shard.name).select(commit_module.RESULT_SCHEMA.names)
    table = table.append_column(outputs.field(0), frame_embeddings(rows))
    sinks.stage_piece(store, shard, shard.pieces[0], table=table)
    staged_bytes = sum(entry.num_bytes for entry in store.list(layout.STAGE))
    assert staged_bytes > 25 * bound
    before = pa.default_memory_pool()
    pool = pa.proxy_memory_pool(before)
    pa.set_memory_pool(pool)
    try:
        commit_staged(store, LabelShard(shard, FINGERPRINT, sinks.source_columns, outputs))
    finally:
        pa.set_memory_pool(before)
    assert pool.max_memory() < commit_module.PEAK * bound == commit_module.memory(num_rows, staged_bytes)
    labels = sinks.parquet(store, shard.name)
    assert labels.metadata.num_row_groups > 15
    assert [vectors[-1][-1].as_py() for vectors in labels.read(["embedding"])["embedding"]] == list(range(num_rows))


def test_missing_results_and_a_source_that_lost_rows_or_cannot_be_read_are_named(store):
    def shorter(piece: Piece) -> pa.Table:
        return sinks.source_columns(Piece(piece.first, piece.end - 1))

    def failing(piece: Piece) -> pa.Table:
        raise ConnectionResetError(104, "Connection reset by peer")

    first, second, third = SHARD.pieces
    for rows in (first, Piece(second.first, second.end - 2), third):
        sinks.stage_piece(store, SHARD, rows)
    with pytest.raises(RunError, match=r"/a/part 1.parquet: results of rows 7 to 9 are missing; run again"):
        sinks.commit_sample(store, SHARD)
    sinks.stage_piece(store, SHARD, second)
    with pytest.raises(ShardError, match=r"/corpus/a/part 1.parquet: read 3 rows from 0 to 4, expected 4"):
        commit_staged(store, LabelShard(SHARD, FINGERPRINT, shorter, OUTPUTS))
    with pytest.raises(StoreError, match=r"/corpus/a/part 1.parquet: cannot read it \(Connection reset by peer\)"):
        commit_staged(store, LabelShard(SHARD, FINGERPRINT, failing, OUTPUTS))
    assert store.stat(SHARD.name) is None


@pytest.mark.parametrize("field", ["version", "fingerprint", "input_id", "file_id"])
def test_a_receipt_of_another_version_or_origin_is_not_used(tmp_path, field):
    store = LocalStore(tmp_path)
    [receipt] = sinks.run(store, SHARD, file_id="11")
    sinks.log(store, replace(receipt, counts=Counts(), **{field: "0"}))
    [(_, found)] = outcomes(store, [SHARD], FINGERPRINT, file_id="11")
    assert found.counts.rows == SHARD.num_rows
