import logging

from raysp.sink import layout, receipts
from raysp.sink.receipts import Counts, PieceReceipt, ShardFailure, ShardReceipt
from raysp.sink.run_log import RunLog

PIECE = PieceReceipt(
    shard="a.parquet",
    first=0,
    end=10,
    counts=Counts(
        rows=10,
        blocks=2,
        windows=12,
        audio_seconds=31.5,
        real_samples=504000,
        padded_samples=600000,
        busy_seconds=1.5,
        wait_seconds=0.25,
        staged_bytes=4000,
        errors={"no_audio": 1},
        skipped={"too_short": 2},
    ),
    actor="ab",
    finished=12.5,
)
SHARD = ShardReceipt("a.parquet", Counts(10, audio_seconds=31.5, errors={"no_audio": 1}))
FAILURE = ShardFailure("\u202eb\n.parquet", "cut short")


def loaded(store, *kinds: str) -> list[object]:
    return [receipt for _, receipt in receipts.load(store, kinds or tuple(receipts.KINDS))]


def test_receipts_come_back_in_the_order_of_runs_and_batches(store):
    for run in ("20260101", "20260102"):
        log = RunLog(store, run)
        for batch in ([PIECE, SHARD], [FAILURE]):
            for receipt in batch:
                log.add(receipt)
            log.flush()
        log.flush()
    assert loaded(store) == [PIECE, SHARD, FAILURE] * 2
    assert loaded(store, "shard") == [SHARD] * 2
    assert len(list(store.list(layout.LOG))) == 4


def test_unreadable_receipts_are_skipped_and_logged(store, caplog):
    lines = (b'{"kind": "shard", "future": 1}', b'{"kind": "shard"', b'{"kind": "failure", "shard": [], "reason": ""}')
    store.create(layout.log_path("run", 0), b"\n".join((*lines, b"\xff\n")))
    with caplog.at_level(logging.WARNING):
        assert loaded(store) == []
    assert caplog.text.count("skipped a receipt that cannot be read") == 3
