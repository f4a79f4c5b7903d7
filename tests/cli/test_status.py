"""What `raysp status` prints: ten lines of progress at most, whatever became of the sink."""

import os
import time

import pytest

import raysp
from raysp.cli.console import print_facts
from raysp.cli.statuses import progress_facts
from raysp.planning.opening import begin_run, open_sink
from raysp.reading.status import Running, Status, status
from raysp.sink import lease
from raysp.sink.processes import Process
from raysp.sink.receipts import BlockReceipt, ReceiptLog
from raysp.sink.run_record import RunEntry
from raysp.sink.word_errors import WordErrors
from tests.corpora import a_pipeline, write_shard

WORST = Status(
    sink="s3://bucket/labels",
    fingerprint="0" * 16,
    shards=1200,
    shards_committed=800,
    shards_staged=3,
    rows=120_000,
    rows_committed=60_000,
    ok=59_000,
    skipped=600,
    error=400,
    errors_by_type={f"kind_{number}": 500 - number for number in range(12)},
    audio_seconds=360_000.0,
    word_errors=WordErrors(rows=10, words=100, substitutions=3),
    failed={f"{number}.parquet": "not readable" for number in range(30)},
    foreign={f"{number}.parquet": "something else" for number in range(30)},
    last_run=None,
    running=Running.YES,
    holder="ann-1234 on host 'here' (pid 12, since 2026-01-01T00:00:00+00:00)",
    rows_staged=900,
    rows_per_second=5.91,
)


def test_progress_is_ten_lines_at_most_and_says_whether_a_run_is_alive_since_when_and_for_how_long(capsys):
    print_facts(WORST.sink, progress_facts(WORST))
    title, *lines = capsys.readouterr().out.splitlines()
    assert title == "s3://bucket/labels"
    assert [" ".join(line.split()) for line in lines] == [
        "run at work: ann-1234 on host 'here' (pid 12, since 2026-01-01T00:00:00+00:00)",
        "shards 800 of 1,200 shards committed, 3 more begun",
        "rows 60,000 of 120,000 rows committed (50%), 900 more labelled",
        "time left 2:46:40, at 5.9 rows a second",
        "audio 100:00:00 in committed shards",
        "labels 59,000 ok, 600 skipped, 400 errors",
        "reasons 500 kind_0, 499 kind_1, 498 kind_2, 497 kind_3, 496 kind_4, and 7 more",
        "word errors 3.00% of 100 reference words in 10 labelled rows (letter case and punctuation aside): "
        "3 substitutions, 0 insertions, 0 deletions",
        "failed 0.parquet: not readable, and 29 more",
        "foreign 0.parquet: something else, and 29 more",
    ]


@pytest.fixture
def pipeline(tmp_path) -> raysp.Pipeline:
    write_shard(tmp_path / "in" / "a.parquet", 4)
    return a_pipeline(f"{tmp_path}/in/*.parquet", tmp_path / "out")


def begun(pipeline: raysp.Pipeline) -> RunEntry:
    entry = RunEntry.now()
    begin_run(raysp.plan(pipeline), entry)
    return entry


def test_a_run_that_is_alive_killed_or_elsewhere_is_told_apart(pipeline):
    begun(pipeline)
    store = open_sink(pipeline)
    url = pipeline.sink.url
    assert status(url).running is Running.NO
    own = lease.acquire(store)
    assert status(url).running is Running.YES
    assert f"pid {os.getpid()}" in status(url).holder
    own.release()
    assert status(url).running is Running.NO
    here = Process.here()
    dead = Process(here.host, here.boot, here.pid, "1")
    lease.acquire(store, holder=lease.Holder("ann-1", dead, "2026-01-01"))
    assert status(url).running is Running.KILLED
    assert "killed; the same command again continues: ann-1" in str(progress_facts(status(url))["run"])
    away = Process("another machine", "x", 1, "1")
    lease.acquire(store, holder=lease.Holder("ann-2", away, "2026-01-02"))
    assert status(url).running is Running.ELSEWHERE


def test_the_time_left_comes_from_receipts(pipeline):
    entry = begun(pipeline)
    store = open_sink(pipeline)
    log = ReceiptLog(store, entry.run_id)
    now = time.time()
    values = {"windows": 1, "audio_seconds": 1.0, "real_samples": 1, "padded_samples": 1, "load_seconds": 0.0}
    for k in range(2):
        log.add(
            BlockReceipt("a.parquet", 0, 4, k, 0, 1, **values, forward_seconds=1.0, actor="x", finished=now + 2 * k)
        )
    log.flush()
    found = status(pipeline.sink.url)
    assert found.rows_per_second == pytest.approx(0.5)
    assert found.last_receipt == pytest.approx(now + 2)
    assert found.eta_seconds is None  # nobody is at work
    own = lease.acquire(store)
    assert status(pipeline.sink.url).eta_seconds == pytest.approx(8.0)
    own.release()
