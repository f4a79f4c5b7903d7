import logging

from raysp.sink import layout, receipts
from raysp.sink.receipts import BlockReceipt, ReceiptLog, ShardFailure, ShardReceipt

BLOCK = BlockReceipt(
    shard="a.parquet",
    first=0,
    end=10,
    k=0,
    of=1,
    rows=10,
    windows=12,
    audio_seconds=31.5,
    real_samples=504000,
    padded_samples=600000,
    load_seconds=0.25,
    forward_seconds=1.5,
    actor="ab",
)
SHARD = ShardReceipt("a.parquet", rows=10, ok=9, skipped=0, error=1, errors_by_type={"no_audio": 1}, seconds=31.5)
FAILURE = ShardFailure("\u202eb\n.parquet", "cut short")


def test_receipts_come_back_in_the_order_of_runs_and_batches(store):
    for run in ("20260101", "20260102"):
        log = ReceiptLog(store, run)
        for batch in ([BLOCK, SHARD], [FAILURE]):
            for receipt in batch:
                log.add(receipt)
            assert len(log) == len(batch)
            log.flush()
            assert len(log) == 0
        log.flush()
    assert list(receipts.load(store)) == [BLOCK, SHARD, FAILURE] * 2
    assert list(receipts.load(store, kinds=("shard",))) == [SHARD] * 2
    assert len(list(store.list(layout.RECEIPTS))) == 4


def test_a_batch_is_never_rewritten(store):
    ReceiptLog(store, "run").flush()
    for receipt in (BLOCK, SHARD):
        log = ReceiptLog(store, "run")
        log.add(receipt)
        log.flush()
    assert list(receipts.load(store)) == [BLOCK, SHARD]


def test_unreadable_receipts_are_skipped_and_logged(store, caplog):
    store.create(layout.receipts_path("run", 0), b'{"kind": "shard", "future": 1}\n{"kind": "shard"\n\xff\n')
    with caplog.at_level(logging.WARNING):
        assert list(receipts.load(store)) == []
    assert caplog.text.count("skipped a receipt that cannot be read") == 2
