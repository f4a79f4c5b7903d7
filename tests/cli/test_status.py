"""What `raysp status` says of runs and trainings: their states, and ten lines at most."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import raysp
from tests import kit, trainings


@pytest.fixture(scope="module")
def begun(tmp_path_factory) -> Path:
    """A sink of a run that was killed after its first piece, of two shards."""
    folder = tmp_path_factory.mktemp("status")
    corpus = kit.corpus(folder / "in", rows=6, shards=2)
    file = corpus.file(folder / "label.py", folder / "out")
    kit.killed_at("after_shard_committed", 1, ["run", file])
    return folder / "out"


@pytest.fixture(scope="module")
def training(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("status") / "model"
    trainings.Sink(folder).train(range(1, 21))
    return folder


@pytest.mark.slow
def test_killed_remote_and_active_runs_are_distinguished_and_a_plan_counts_what_they_committed(begun):
    before = sorted(begun.rglob("*"))
    ran = kit.run(["status", begun])
    assert (ran.code, ran.err) == (0, "")
    assert "killed; the same command again continues: " in ran.out
    assert "1 of 2 shards committed" in ran.out
    assert sorted(begun.rglob("*")) == before
    plan = json.loads(kit.run(["plan", begun.with_name("label.py"), "--json"]).out)
    assert (plan["shards_committed"], plan["rows_todo"]) == (1, 3)

    [lease] = (begun / ".raysp" / "lease").iterdir()
    here = lease.read_text()
    lease.write_text(here.replace(json.loads(here)["process"]["host"], "another machine"))
    assert "active or lost, not visible from this machine: " in kit.run(["status", begun]).out
    lease.write_text(here)

    seen = []
    pipeline = kit.pipeline_in(begun.with_name("label.py"))
    raysp.run(pipeline, engine="here", progress=False, on_progress=lambda _: seen.append(raysp.status(str(begun))))
    assert {one.running.name for one in seen} == {"YES"}
    assert raysp.status(str(begun)).running.name == "NO"
    plain, details = (kit.run(["status", begun, *options]).out for options in ((), ("--verbose",)))
    facts = dict(
        line.split(maxsplit=1) for line in details.partition("Details\n")[2].splitlines() if " " in line.strip()
    )
    assert (facts["shards"], facts["rows"], "fingerprint" in plain) == ("2", "6", False)
    assert (len(facts["fingerprint"]), facts["last_run.versions.raysp"]) == (16, raysp.__version__)


def test_progress_is_ten_lines_at_most(begun):
    found = raysp.status(str(begun))
    counts = replace(
        found.counts,
        rows=60_000,
        audio_seconds=360_000.0,
        errors={f"kind_{number}": 45 - number for number in range(9)} | {"kind_9": 31},
        skipped={"too_short": 399, "filtered": 201},
    )
    shards = {"shards": 1200, "shards_committed": 800, "shards_staged": 3, "rows": 120_000, "rows_staged": 900}
    many = {f"{number}.parquet": "not readable" for number in range(30)}
    states = {"running": type(found.running).YES, "holder": "ann-1234", "rows_per_second": 5.91}
    facts = replace(found, counts=counts, failed=many, foreign=many, **shards, **states).facts
    shown = {name: text for name, text in facts.items() if text is not None and name != "word errors"}
    assert shown == {
        "run": "active: ann-1234",
        "shards": "800 of 1,200 shards committed, 3 more begun",
        "rows": "60,000 of 120,000 rows committed (50%), 900 more labelled",
        "time left": "2:46:40, at 5.9 rows a second",
        "audio": "100:00:00 in committed shards",
        "labels": "59,000 ok, 600 skipped, 400 errors",
        "reasons": "399 too_short, 201 filtered, 45 kind_0, 44 kind_1, 43 kind_2, and 7 more",
        "failed": "0.parquet: not readable, and 29 more",
        "foreign": "0.parquet: not readable, and 29 more",
    }


def test_the_sink_of_a_training_may_be_named_by_its_recipe_and_is_none_of_labels(training, tmp_path):
    file = tmp_path / "recipe_of_a_sink.py"
    file.write_text(
        "import raysp\n"
        "recipe = raysp.Finetune(raysp.Shards('in', text='text'), steps=[raysp.Decode()], "
        f"objective=raysp.CTC('x'), schedule=raysp.Schedule(epochs=4), sink=raysp.Checkpoint({str(training)!r}))\n"
    )
    assert f"{training}\n  run         none active" in kit.run(["status", file]).out
    found = json.loads(kit.run(["status", training, "--json"]).out)
    assert (found["steps"], found["share"], found["is_done"], found["is_complete"]) == (20, 0.5, False, False)
    ran = kit.run(["verify", training])
    assert ran.code == 2
    assert "the sink of a training, without label shards; `raysp status` shows its progress" in ran.err


@pytest.mark.slow
def test_it_loads_nothing_that_takes_long_and_is_not_needed(begun, training):
    code = """
import contextlib, sys
from raysp.cli import main
for sink in sys.argv[1:]:
    with contextlib.suppress(SystemExit):
        main(["status", sink])
print(*sys.modules)
"""
    ran = subprocess.run([sys.executable, "-c", code, begun, training], check=True, capture_output=True, text=True)
    assert not {"torch", "ray", "pandas", "datasets", "boto3", "jinja2"} & {*ran.stdout.split()}
