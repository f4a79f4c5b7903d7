import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from raysp import ChangedError, RunError, ShardError, StoreError
from raysp.corpus.shards import Piece
from raysp.sink import commit as commit_module
from raysp.sink import footer, layout, stage
from raysp.sink.commit import LabelShard, commit, outcomes
from raysp.sink.receipts import Counts, ShardReceipt
from raysp.storage.opened import content_of
from raysp.storage.store import LocalStore
from tests.sink import sinks
from tests.sink.sinks import FINGERPRINT, INPUT_ID, OUTPUTS, make_shard

SHARD = make_shard()


def test_a_label_shard_answers_its_shard_row_for_row(store):
    [receipt] = sinks.run(store, SHARD)
    assert sinks.labels(store, SHARD) == sinks.expected(SHARD)
    assert receipt == ShardReceipt(
        shard=SHARD.name,
        counts=Counts(
            23,
            audio_seconds=sum(0.5 + row for row in range(23) if row % 7 != 3),
            errors={"corrupt_audio": 3},
            skipped={"too_short": 2},
        ),
        version=content_of(store.stat(SHARD.name)),
        fingerprint=FINGERPRINT,
        input_id=INPUT_ID,
    )


def test_only_ok_rows_are_written_on_request_and_the_others_kept_beside(store):
    [receipt] = sinks.run(store, SHARD, rows="ok")
    expected = sinks.expected(SHARD)
    assert sinks.labels(store, SHARD) == [row for row in expected if row["status"] == "ok"]
    [path] = [entry.path for entry in store.list(layout.ERRORS)]
    rest_id = footer.read(store, SHARD.name).entries["rest_id"]
    assert path == layout.errors_path(SHARD.name, INPUT_ID, FINGERPRINT, rest_id)
    with pa.ipc.open_stream(store.open(path)) as rest:
        assert rest.read_all().to_pylist() == [row for row in expected if row["status"] != "ok"]
    assert (receipt.counts.rows, receipt.counts.by_status["ok"]) == (23, 18)


@pytest.mark.parametrize("rows", ["all", "ok"])
def test_a_shard_without_rows_gets_an_empty_label_shard_of_the_same_schema(store, rows):
    empty = replace(make_shard("empty.parquet"), num_rows=0, pieces=())
    sinks.run(store, SHARD)
    [receipt] = sinks.run(store, empty, rows=rows)
    files = [sinks.parquet(store, shard.name) for shard in (SHARD, empty)]
    assert files[0].schema_arrow == files[1].schema_arrow
    assert files[1].metadata.num_rows == receipt.counts.rows == 0


@pytest.mark.slow
def test_a_commit_holds_about_a_row_group_for_any_size_of_piece(tmp_path, monkeypatch):
    bound, width, frames, num_rows = 1024 * 1024, 64, 500, 240
    monkeypatch.setattr(commit_module, "ROW_GROUP_BYTES", bound)
    monkeypatch.setattr(stage, "BATCH_BYTES", bound // 8)
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
        commit(store, LabelShard(shard, FINGERPRINT, sinks.source_columns, outputs))
    finally:
        pa.set_memory_pool(before)
    assert pool.max_memory() < commit_module.PEAK * bound == commit_module.memory(num_rows, staged_bytes)
    labels = sinks.parquet(store, shard.name)
    assert labels.metadata.num_row_groups > 15
    assert [vectors[-1][-1].as_py() for vectors in labels.read(["embedding"])["embedding"]] == list(range(num_rows))


class TestRefusals:
    @pytest.mark.parametrize("content", [b"", b"PAR1 but not really PAR1"])
    def test_any_other_file_in_its_place_is_refused_and_stays(self, store, content):
        store.create(SHARD.name, content)
        with pytest.raises(ChangedError, match="not a label shard of raysp"):
            sinks.run(store, SHARD)
        assert store.read(SHARD.name) == content

    def test_missing_results_are_named(self, store):
        first, second, _ = SHARD.pieces
        for rows in (first, Piece(second.first, second.end - 2)):
            sinks.stage_piece(store, SHARD, rows)
        with pytest.raises(RunError, match=r"/a/part 1.parquet: results of rows 7 to 9 are missing; run again"):
            sinks.commit_sample(store, SHARD)
        assert store.stat(SHARD.name) is None

    def test_a_source_that_lost_rows_is_named(self, store):
        for piece in SHARD.pieces:
            sinks.stage_piece(store, SHARD, piece)

        def columns(piece):
            return sinks.source_columns(Piece(piece.first, piece.end - 1))

        with pytest.raises(ShardError, match=r"/corpus/a/part 1.parquet: read 3 rows from 0 to 4, expected 4"):
            commit(store, LabelShard(SHARD, FINGERPRINT, columns, OUTPUTS))

    def test_a_source_that_cannot_be_read_is_not_called_a_sink_that_cannot_be_written(self, store):
        def fail(piece):
            raise ConnectionResetError(104, "Connection reset by peer")

        with pytest.raises(StoreError, match=r"/corpus/a/part 1.parquet: cannot read it \(Connection reset by peer\)"):
            commit(store, LabelShard(SHARD, FINGERPRINT, fail, OUTPUTS))


@pytest.mark.drivers
@pytest.mark.slow
@pytest.mark.usefixtures("atomic_store")
def test_processes_that_commit_the_same_shard_all_succeed(stores, store):
    for piece in SHARD.pieces:
        sinks.stage_piece(store, SHARD, piece)
    program = (
        "import raysp, raysp.storage.store; from tests.sink import sinks; "
        f"print(sinks.commit_sample({stores.code()}, sinks.make_shard()).existing)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", program]
    processes = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=60)[0].strip() for process in processes]
    assert sorted(said) == ["False", "True"]
    assert sinks.labels(store, SHARD) == sinks.expected(SHARD)


@pytest.mark.parametrize("field", ["version", "fingerprint", "input_id", "file_id"])
def test_a_receipt_of_another_version_or_origin_is_not_used(store, field):
    [receipt] = sinks.run(store, SHARD, file_id="11")
    sinks.log(store, replace(receipt, counts=Counts(), **{field: "0"}))
    [(_, found)] = outcomes(store, [SHARD], FINGERPRINT, file_id="11")
    assert found.counts.rows == SHARD.num_rows
