"""What `raysp status` prints: ten lines of progress at most, whatever became of the sink."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pytest

import raysp
from raysp.cli.console import print_facts
from raysp.cli.statuses import progress_facts
from raysp.planning.opening import begin_run
from raysp.reading.status import Running, Status, status
from raysp.sink import lease, stage
from raysp.sink.commit import commit
from raysp.sink.processes import Process
from raysp.sink.receipts import BlockReceipt, ReceiptLog
from raysp.sink.run_record import RunEntry
from raysp.sink.sinks import Sink
from raysp.sink.word_errors import WordErrors
from tests.corpora import a_pipeline, write_shard
from tests.sink.sinks import RESULT_SCHEMA

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


def test_progress_is_ten_lines_at_most_with_the_state_start_and_duration_of_a_run(capsys):
    print_facts(WORST.sink, progress_facts(WORST))
    title, *lines = capsys.readouterr().out.splitlines()
    assert title == "s3://bucket/labels"
    assert [" ".join(line.split()) for line in lines] == [
        "run active: ann-1234 on host 'here' (pid 12, since 2026-01-01T00:00:00+00:00)",
        "shards 800 of 1,200 shards committed, 3 more begun",
        "rows 60,000 of 120,000 rows committed (50%), 900 more labelled",
        "time left 2:46:40, at 5.9 rows a second",
        "audio 100:00:00 in committed shards",
        "labels 59,000 ok, 600 skipped, 400 errors",
        "reasons 500 kind_0, 499 kind_1, 498 kind_2, 497 kind_3, 496 kind_4, and 7 more",
        "word errors 3.00% of 100 reference words in 10 labelled rows (ignoring case and punctuation): "
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


def test_active_killed_and_remote_runs_are_distinguished(pipeline):
    begun(pipeline)
    store = Sink.of(pipeline.sink).store
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
    store = Sink.of(pipeline.sink).store
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


class TestStatus:
    @pytest.fixture
    def sink(self, recipe, tmp_path) -> Path:
        from raysp.specs.pipeline import load_pipeline

        write_shard(tmp_path / "in" / "b.parquet", 2)
        plan = raysp.plan(load_pipeline(str(recipe)))
        store = begin_run(plan, RunEntry.now()).store
        shard = plan.corpus.shards[0]
        outputs = pa.schema([("pred_text", pa.string()), ("pred_score", pa.float32())])
        rows = [{"row": row, "seconds": 0.1, "status": "ok", "pred_text": "x"} for row in range(3)]
        block = stage.BlockName(shard.name, shard.pieces[0], shard.input_id, plan.fingerprint, 0, 1)
        stage.stage(store, block, pa.Table.from_pylist(rows, schema=pa.schema([*RESULT_SCHEMA, *outputs])))
        ids = pa.table({"id": ["a", "b", "c"]})
        commit(
            store,
            shard,
            fingerprint=plan.fingerprint,
            source_columns=lambda piece: ids,
            output_schema=outputs,
            rows="all",
        )
        return tmp_path / "out"

    def test_it_reports_the_progress_of_a_sink(self, raysp_command, sink):
        ran = raysp_command("status", sink)
        assert (ran.code, ran.err) == (0, "")
        lines = [line.strip() for line in ran.out.splitlines()]
        assert lines[0] == str(sink)
        assert lines[1].startswith("run     none active; the last one began 2")
        assert lines[2:5] == [
            "shards  1 of 2 shards committed",
            "rows    3 of 5 rows committed (60%)",
            "audio   0:00 in committed shards",
        ]
        assert lines[5:] == ["labels  3 ok, 0 skipped, 0 errors"]

    def test_the_origin_of_the_labels_is_printed_on_request(self, raysp_command, sink):
        assert "fingerprint" not in raysp_command("status", sink).out
        details = raysp_command("status", sink, "--verbose").out.partition("Details\n")[2]
        facts = dict(line.split(maxsplit=1) for line in details.splitlines() if len(line.split()) > 1)
        assert (facts["shards"], facts["shards_committed"], facts["rows"], facts["ok"]) == ("2", "1", "5", "3")
        assert len(facts["fingerprint"]) == 16
        assert facts["last_run.versions.raysp"] == raysp.__version__
        assert re.fullmatch(r"[0-9a-f]{16,64}", facts["checkpoint_digest"])

    def test_as_json_it_prints_one_object(self, raysp_command, sink):
        ran = raysp_command("status", sink, "--json")
        found = json.loads(ran.out)
        assert (ran.code, ran.err) == (0, "")
        assert (found["shards"], found["shards_committed"], found["rows_committed"]) == (2, 1, 3)

    def test_it_loads_nothing_that_takes_long_and_is_not_needed(self, sink):
        code = (
            "import atexit, sys; from raysp.cli import main; atexit.register(lambda: print(*sys.modules)); "
            f"main(['status', {str(sink)!r}])"
        )
        loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
        assert "pyarrow" in loaded
        assert not {"torch", "ray", "pandas", "datasets", "boto3"} & {*loaded}

    def test_a_plan_of_it_counts_committed_shards(self, raysp_command, recipe, sink):
        found = json.loads(raysp_command("plan", recipe, "--json").out)
        assert (found["shards_committed"], found["rows_todo"]) == (1, 2)
