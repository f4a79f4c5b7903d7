"""The driver counts every block once, also when Ray reports it twice or takes it back."""

import pytest

from raysp.corpus.shards import Piece, Shard
from raysp.labelling.engine.error_rate import ErrorRate
from raysp.labelling.engine.open_shards import OpenShards
from raysp.labelling.engine.run_progress import Progress
from raysp.labelling.engine.workers.messages import LabelledBlock, RowError
from raysp.sink.receipts import BlockReceipt, ShardReceipt
from raysp.sink.todo import Todo

PIECES = (Piece(0, 4), Piece(4, 6))
SHARD = Shard("a.parquet", "in/a.parquet", 100, "v", 6, "0" * 16, PIECES)


def block(piece: Piece, k: int, of: int, rows: int) -> BlockReceipt:
    samples = {"real_samples": 10, "padded_samples": 11}
    seconds = {"audio_seconds": 2.0 * rows, "load_seconds": 0.0, "forward_seconds": 1.0}
    return BlockReceipt(SHARD.name, piece.first, piece.end, k, of, rows, windows=rows, actor="x", **samples, **seconds)


@pytest.fixture
def shards() -> OpenShards:
    return OpenShards([Todo(SHARD, PIECES)], Progress(rows_total=6, shards_total=1))


def add(shards: OpenShards, receipt: BlockReceipt, errors=None, long_errors=None, skipped=None) -> Shard | None:
    examples = (RowError(0, "corrupt_audio", "cut short"),) if errors else ()
    return shards.add(LabelledBlock(receipt, 0.0, errors or {}, long_errors or {}, skipped or {}, examples))


def test_a_shard_is_given_once_all_blocks_of_all_pieces_are_there(shards):
    assert add(shards, block(PIECES[0], 1, 2, 1)) is None
    assert add(shards, block(PIECES[1], 0, 1, 2)) is None
    assert add(shards, block(PIECES[0], 0, 0, 3)) == SHARD
    assert (shards.progress.rows, shards.progress.audio_seconds) == (6, 12.0)
    shards.committed(committed())
    assert shards.unfinished() == {}
    assert (shards.progress.errors, shards.progress.skipped) == ({}, {})


def committed(existing: bool = False, **by_type: int) -> ShardReceipt:
    ok = 6 - sum(by_type.values())
    return ShardReceipt(SHARD.name, 6, ok, 0, 0, errors_by_type=by_type, existing=existing)


def test_rows_that_are_judged_when_windows_are_joined_are_added_at_the_commit(shards):
    add(shards, block(PIECES[0], 0, 1, 4), {"corrupt_audio": 1}, {2: "worker_crashed"}, {"filtered": 1})
    add(shards, block(PIECES[1], 0, 1, 2))
    shards.committed(committed(corrupt_audio=1, worker_crashed=1, filtered=2, step_failed=1))
    assert shards.progress.errors == {"corrupt_audio": 1, "worker_crashed": 1, "step_failed": 1}
    assert shards.progress.skipped == {"filtered": 2}


def test_rows_that_another_run_has_labelled_are_not_added(shards):
    part = OpenShards([Todo(SHARD, PIECES[:1])], Progress(rows_total=4, shards_total=1))
    for one, pieces, existing in ((shards, PIECES, True), (part, PIECES[:1], False)):
        for piece in pieces:
            add(one, block(piece, 0, 1, piece.num_rows))
        one.committed(committed(existing, filtered=2))
        assert one.progress.skipped == {}


def test_a_repeated_message_counts_once(shards):
    for _ in range(3):
        add(shards, block(PIECES[0], 0, 0, 3), {"corrupt_audio": 1})
    assert (shards.progress.rows, shards.progress.num_errors, shards.progress.blocks) == (3, 1, 1)
    add(shards, block(PIECES[0], 1, 2, 1))
    assert add(shards, block(PIECES[0], 1, 2, 1)) is None  # the piece is through
    assert shards.progress.rows == 4


def test_results_that_are_redone_are_subtracted(shards):
    add(shards, block(PIECES[0], 0, 0, 3), {"corrupt_audio": 2}, skipped={"filtered": 1})
    assert shards.progress.skipped == {"filtered": 1}
    shards.forget(SHARD.name, PIECES[0])
    assert (shards.progress.rows, shards.progress.num_errors, shards.progress.audio_seconds) == (0, 0, 0.0)
    assert (shards.progress.begun_rows, shards.progress.begun_seconds, shards.progress.done_seconds) == (0, 0, 0)
    assert shards.progress.skipped == {}
    add(shards, block(PIECES[0], 0, 1, 4), {"corrupt_audio": 1})
    assert (shards.progress.rows, shards.progress.num_errors) == (4, 1)


def test_an_error_of_a_row_of_several_windows_counts_once_over_blocks(shards):
    add(shards, block(PIECES[0], 0, 0, 0), long_errors={1: "model_output"})
    add(shards, block(PIECES[0], 1, 2, 4), long_errors={1: "model_output", 2: "model_output"})
    assert shards.progress.errors == {"model_output": 2}


def test_pieces_that_gave_no_result_are_named_and_a_failed_shard_is_not_given(shards):
    add(shards, block(PIECES[0], 0, 1, 4))
    assert shards.unfinished() == {"a.parquet": "no result for 1 piece; run again"}
    shards.failed["a.parquet"] = "no such file"
    assert add(shards, block(PIECES[1], 0, 1, 2)) is None
    assert shards.unfinished() == {"a.parquet": "no such file"}


def test_rows_that_are_taken_back_do_not_count_for_the_error_rate():
    rate = ErrorRate(0.1)
    rate.add("a", 200, 30)
    assert rate.is_exceeded
    rate.add("a", -50, -30)
    rate.add("a", 50, 0)
    assert (rate.is_known, rate.is_exceeded) == (True, False)
