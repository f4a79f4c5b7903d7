"""What `raysp status` prints: ten lines of progress at most, whatever became of the sink."""

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

import raysp
from raysp import status
from raysp.cli.console import print_facts
from raysp.evaluation.scores import Estimate
from raysp.labelling.finished.label_status import Status
from raysp.sink import layout, lease
from raysp.sink.lease import Process, Running
from raysp.sink.receipts import Counts, PieceReceipt, WordErrors
from raysp.sink.run_log import RunLog
from raysp.sink.sinks import Sink
from raysp.training.reading.training_status import BestEvaluation, LastSteps, TrainingStatus
from tests import kit
from tests.corpora import a_pipeline, write_shard

WORST = Status(
    sink="s3://bucket/labels",
    fingerprint="0" * 16,
    shards=1200,
    shards_committed=800,
    shards_staged=3,
    rows=120_000,
    counts=Counts(
        60_000,
        audio_seconds=360_000.0,
        errors={f"kind_{number}": 45 - number for number in range(9)} | {"kind_9": 31},
        skipped={"too_short": 399, "filtered": 201},
    ),
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
    print_facts(WORST.sink, WORST.facts)
    title, *lines = capsys.readouterr().out.splitlines()
    assert title == "s3://bucket/labels"
    assert [" ".join(line.split()) for line in lines] == [
        "run active: ann-1234 on host 'here' (pid 12, since 2026-01-01T00:00:00+00:00)",
        "shards 800 of 1,200 shards committed, 3 more begun",
        "rows 60,000 of 120,000 rows committed (50%), 900 more labelled",
        "time left 2:46:40, at 5.9 rows a second",
        "audio 100:00:00 in committed shards",
        "labels 59,000 ok, 600 skipped, 400 errors",
        "reasons 399 too_short, 201 filtered, 45 kind_0, 44 kind_1, 43 kind_2, and 7 more",
        "word errors 3.00% of 100 reference words in 10 labelled rows (ignoring case and punctuation): "
        "3 substitutions, 0 insertions, 0 deletions",
        "failed 0.parquet: not readable, and 29 more",
        "foreign 0.parquet: something else, and 29 more",
    ]


TRAINING = TrainingStatus(
    sink="s3://bucket/model",
    fingerprint="0" * 16,
    steps=81_200,
    steps_planned=None,
    epochs=12,
    epochs_planned=30,
    share=0.4123,
    last_steps=LastSteps(50, 0.123456, 2.96e-4, 1234.56, 0.034),
    last_commit=1000.0,
    eta_seconds=9966.0,
    best=BestEvaluation(81_000, "wer", Estimate(0.1234, 0.11, 0.14), 81),
    steps_exported=81_000,
    last_run=None,
    running=Running.YES,
    holder="ann-1234 on host 'here' (pid 12, since 2026-01-01T00:00:00+00:00)",
)


def test_a_training_is_ten_lines_at_most(capsys, monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 1125.0)
    print_facts(TRAINING.sink, TRAINING.facts)
    title, *lines = capsys.readouterr().out.splitlines()
    assert title == "s3://bucket/model"
    assert [" ".join(line.split()) for line in lines] == [
        "run active: ann-1234 on host 'here' (pid 12, since 2026-01-01T00:00:00+00:00)",
        "steps 81,200 committed (41%), the last 2:05 ago",
        "epochs 12 of 30 done",
        "time left 2:46:06",
        "loss 0.1235, the mean of 50 steps",
        "rate 3.0e-04 in the last step",
        "speed 1,234.6 s of audio a second, waited for rows 3% of the time",
        "evaluation WER 12.34% (11.00% to 14.00%) at step 81,000, the best of 81",
        "checkpoint exported, with the weights of step 81,000",
    ]


@pytest.mark.parametrize(
    ("changes", "name", "expected"),
    [
        ({"running": Running.NO}, "run", "none active"),
        ({"running": Running.KILLED, "holder": "ann"}, "run", "killed; the same command again continues: ann"),
        (
            {"running": Running.ELSEWHERE, "holder": "ann"},
            "run",
            "active or lost, not visible from this machine: ann, last commit 2:05 ago",
        ),
        ({"steps_planned": 90_000}, "steps", "81,200 of 90,000 committed (41%), the last 2:05 ago"),
        ({"epochs_planned": None}, "epochs", "12 done"),
        ({"has_given_up": True}, "epochs", "12 of 30 done, ended early by patience"),
        ({"last_steps": None}, "loss", None),
        ({"eta_seconds": None}, "time left", None),
        ({"best": None}, "evaluation", None),
        ({"best": BestEvaluation(10, "loss", Estimate(0.5), 1)}, "evaluation", "loss 0.5 at step 10"),
        ({"steps_exported": None}, "checkpoint", "not exported yet"),
        ({"steps_exported": None, "epochs": 30}, "checkpoint", "not exported; the same command again exports it"),
    ],
)
def test_facts_of_a_training(monkeypatch, changes, name, expected):
    monkeypatch.setattr(time, "time", lambda: 1125.0)
    assert replace(TRAINING, **changes).facts[name] == expected


class TestStatusOfATraining:
    @pytest.fixture
    def sink(self, tmp_path) -> Path:
        from tests.trainings import Sink

        Sink(tmp_path / "model").train(range(1, 21))
        return tmp_path / "model"

    def test_it_is_printed_for_the_sink(self, raysp_command, sink):
        ran = raysp_command("status", sink)
        assert (ran.code, ran.err) == (0, "")
        assert re.search(
            r"\n  steps       20 committed \(50%\), the last 0:0\d ago\n  epochs      2 of 4 done\n", ran.out
        )

    def test_as_json_it_is_one_object(self, raysp_command, sink):
        found = json.loads(raysp_command("status", sink, "--json").out)
        assert (found["steps"], found["share"], found["is_done"], found["is_complete"]) == (20, 0.5, False, False)
        assert "last_run.versions.raysp" in raysp_command("status", sink, "--verbose").out

    def test_the_file_of_the_recipe_names_it_too(self, raysp_command, sink, tmp_path):
        file = tmp_path / "recipe_of_a_sink.py"
        file.write_text(
            "import raysp\n"
            "recipe = raysp.Finetune(raysp.Shards('in', text='text'), steps=[raysp.Decode()], "
            f"objective=raysp.CTC('x'), schedule=raysp.Schedule(epochs=4), sink=raysp.Checkpoint({str(sink)!r}))\n"
        )
        assert f"{sink}\n  run         none active" in raysp_command("status", file).out

    def test_gc_and_verify_have_a_word_for_it(self, raysp_command, sink):
        ran = raysp_command("gc", sink)
        assert (ran.code, ran.out) == (0, "removed      0 files, 0 bytes\n")
        ran = raysp_command("verify", sink)
        assert ran.code == 2
        assert "the sink of a training, without label shards; `raysp status` shows its progress" in ran.err

    @pytest.mark.slow
    def test_it_loads_nothing_that_takes_long_and_is_not_needed(self, sink):
        loaded = modules_of_status(sink)
        assert not {"torch", "ray", "pandas", "datasets", "boto3", "jinja2"} & {*loaded}


@pytest.fixture
def pipeline(tmp_path) -> raysp.Pipeline:
    write_shard(tmp_path / "in" / "a.parquet", 4)
    return a_pipeline(f"{tmp_path}/in/*.parquet", tmp_path / "out")


def modules_of_status(sink: Path) -> list[str]:
    """Return the modules that are loaded after `raysp status`."""
    code = (
        "import atexit, sys; from raysp.cli import main; atexit.register(lambda: print(*sys.modules)); "
        f"main(['status', {str(sink)!r}])"
    )
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()


def test_active_killed_and_remote_runs_are_distinguished(pipeline, tmp_path):
    kit.begun(pipeline, tmp_path / "in")
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
    assert "killed; the same command again continues: ann-1" in str(status(url).facts["run"])
    last = status(url).last_run
    with RunLog(store, last.run_id) as log:
        log.urgent_event("failed", reason="No space left on device")
    assert status(url).running is Running.NO, "a run that wrote why it ended, and could not release its lease"
    store.replace(
        layout.lease_path(lease.highest_epoch(store)),
        json.dumps({**asdict(lease.holder(store)), "since": "2100-01-01"}).encode(),
    )
    assert status(url).running is Running.KILLED, "a later run"
    away = Process("another machine", "x", 1, "1")
    lease.acquire(store, holder=lease.Holder("ann-2", away, "2026-01-02"))
    assert status(url).running is Running.ELSEWHERE


def test_the_time_left_comes_from_receipts(pipeline, tmp_path):
    kit.begun(pipeline, tmp_path / "in")
    store = Sink.of(pipeline.sink).store
    log = RunLog(store, status(pipeline.sink.url).last_run.run_id)
    now = time.time()
    for row in range(2):
        log.add(PieceReceipt("a.parquet", row, row + 1, Counts(rows=1), "x", finished=now + 2 * row))
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
        write_shard(tmp_path / "in" / "b.parquet", 2)
        kit.interrupted(a_pipeline(f"{tmp_path}/in/*.parquet", tmp_path / "out"))
        return tmp_path / "out"

    def test_it_reports_the_progress_of_a_sink_and_writes_nothing(self, raysp_command, sink):
        before = sorted(sink.rglob("*"))
        ran = raysp_command("status", sink)
        assert (ran.code, ran.err) == (0, "")
        assert sorted(sink.rglob("*")) == before
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

    @pytest.mark.slow
    def test_it_loads_nothing_that_takes_long_and_is_not_needed(self, sink):
        loaded = modules_of_status(sink)
        assert "pyarrow" in loaded
        assert not {"torch", "ray", "pandas", "datasets", "boto3"} & {*loaded}

    def test_a_plan_of_it_counts_committed_shards(self, raysp_command, recipe, sink):
        found = json.loads(raysp_command("plan", recipe, "--json").out)
        assert (found["shards_committed"], found["rows_todo"]) == (1, 2)
