"""What macOS lacks, taken away from raysp on Linux in processes of their own (`lacking`)."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import raysp
from tests.commands import Ran
from tests.corpora import CHECKPOINT, DEMO, a_pipeline, write_shard
from tests.runs import row_hash
from tests.versions.lacking.lacking_calls import VARIABLE

ROOT = Path(__file__).parents[2]
LACKING = Path(__file__).with_name("lacking")

PLAN_AND_LABEL = f"""
import pyarrow.parquet as pq
import raysp

label = raysp.Label({str(CHECKPOINT)!r}, outputs=[raysp.Transcript()])
pipeline = raysp.Pipeline(
    source=raysp.Shards("{DEMO}/audio/*.parquet"), steps=[raysp.Decode(), label], sink=raysp.Parquet("none")
)
table = pq.read_table("{DEMO}/audio/digits-00000-of-00002.parquet").slice(0, 2)
print(raysp.plan(pipeline).fingerprint, raysp.Labeller(pipeline.steps)(table)["pred_text"].to_pylist())
"""


def environment(system: str) -> dict[str, str]:
    return {**os.environ, VARIABLE: system, "PYTHONPATH": str(LACKING)}


def printed(program: str, system: str = "", *arguments: Path) -> str:
    """Return what a program prints; without a system nothing is taken away."""
    command = [sys.executable, "-c", program, *map(str, arguments)]
    done = subprocess.run(
        command, env=environment(system) if system else None, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


LACKED = """
from raysp import bounds, devices
from raysp.labelling.engine import process_clock

import os
print(devices.system(), hasattr(devices.os, "sched_getaffinity"), hasattr(os, "sched_getaffinity"))
print(bounds.has_memory_limit())
print(process_clock.read_times(os.getpid()), devices.num_cpus() >= 1, devices.memory_bytes() > 0)
"""


@pytest.mark.parametrize(
    ("system", "expected"),
    [
        ("macos", ["macOS False True", "False", "None True True"]),
        ("", ["Linux True True", "True", "True True"]),
    ],
)
def test_calls_are_taken_away_from_raysp_alone(system, expected):
    lines = printed(LACKED, system).splitlines()
    assert lines[:2] == expected[:2]
    assert lines[2].endswith(expected[2])


@pytest.fixture(scope="module")
def sink(tmp_path_factory):
    """A finished sink, in a folder with its corpus and the pipeline file."""
    folder = tmp_path_factory.mktemp("sink")
    write_shard(folder / "in" / "0.parquet", table=pq.read_table(min((DEMO / "audio").glob("*.parquet"))).slice(0, 3))
    raysp.run(
        a_pipeline(f"{folder}/in", folder / "out", label={"outputs": [raysp.Transcript(words=True)]}),
        engine="here",
        progress=False,
    )
    pipeline = f'''
import raysp
steps = [raysp.Decode(), raysp.Label({str(CHECKPOINT)!r}, outputs=[raysp.Transcript(words=True)])]
pipeline = raysp.Pipeline(raysp.Shards("{folder}/in"), steps=steps, sink=raysp.Parquet("{folder}/new"))
'''
    (folder / "label.py").write_text(pipeline)
    shutil.copytree(folder / "out", folder / "again")
    return folder


COMMANDS = """
import contextlib, io, json, sys
from raysp.cli import main

found = []
for words in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            exec(words, {}) if "\\n" in words else main(words.split())
            sys.exit()
        except SystemExit as stop:
            found.append([int(stop.code or 0), out.getvalue(), err.getvalue()])
print(json.dumps(found))
"""


def run_commands(system: str, commands: Sequence[str], folder: Path) -> dict[str, Ran]:
    """Run commands of raysp, and programs of several lines, one after the other in one process and a sink's folder."""
    variables = {**environment(system), "PYTHONPATH": f"{LACKING}{os.pathsep}{ROOT}"}
    line = [sys.executable, "-c", COMMANDS, json.dumps(commands)]
    done = subprocess.run(line, cwd=folder, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    return {words: Ran(*one) for words, one in zip(commands, found, strict=True)}


def refused(done: Ran) -> str:
    """Return the sentence of a refusal."""
    assert done.code == 2, done.err
    assert done.out == ""
    *_, last = done.err.splitlines()
    return last


FINETUNE = f"finetune {ROOT}/pipelines/finetune_ctc.py"
A_CLUSTER = "run label.py --address 127.0.0.1:1"
SEVERAL_WORKERS = f"{FINETUNE} --set sink.url=trained --set pool.actors=2"


@pytest.fixture(scope="module")
def on_macos(sink) -> dict[str, Ran]:
    return run_commands("macos", [A_CLUSTER, SEVERAL_WORKERS, PLAN_AND_LABEL], sink)


@pytest.mark.drivers
def test_plan_and_labels_are_the_same_without_what_macos_lacks(on_macos, sink, monkeypatch, capsys):
    monkeypatch.chdir(sink)
    exec(PLAN_AND_LABEL, {})
    expected = capsys.readouterr().out
    assert on_macos[PLAN_AND_LABEL].out == expected != ""


@pytest.mark.drivers
def test_macos_labels_as_linux_does_and_trains(sink):
    commands = "run label.py", f"{FINETUNE} --steps 1 --set batching.seconds=8"
    done = run_commands("macos", commands, sink)
    assert {words: one.err for words, one in done.items() if one.code} == {}
    assert row_hash(sink / "new") == row_hash(sink / "out")
    shutil.rmtree(sink / "new")


@pytest.mark.drivers
def test_a_cluster_is_refused_on_macos(on_macos):
    said = refused(on_macos[A_CLUSTER])
    assert said.startswith("raysp: macOS: a cluster (127.0.0.1:1) is used from Linux alone; raysp submit")


@pytest.mark.drivers
def test_several_workers_of_a_training_are_refused_on_macos(on_macos):
    said = refused(on_macos[SEVERAL_WORKERS])
    assert said == "raysp: macOS: training by several workers or on a cluster needs Linux; use one worker here"


QUICK = ["audio"]
"""Folders of quick tests that `make test-drivers` runs. Those of `REST` belong to `make soak`."""
REST = ["corpus", "labelling/finished", "ops", "sink", "specs", "storage", "text", "verbs"]
OF_PROC = [
    "audio/test_isolation.py::test_children_leave_no_process_and_no_descriptor",
    "audio/test_isolation.py::test_the_child_is_given_no_secrets_and_no_files_of_its_parent",
    "sink/test_lease.py::test_a_dead_process_of_this_machine_is_taken_over_at_once",
    "sink/test_lease.py::test_another_process_of_the_same_number_is_not_the_owner",
    "sink/test_lease.py::test_the_same_pid_of_another_boot_or_container_has_no_meaning",
    "verbs/test_watching.py::test_states_follow_until_the_run_has_released_its_lease",
    "verbs/test_watching.py::test_the_end_of_a_killed_run_is_seen",
]
"""They show what /proc is read for: whether other processes live, work or are stopped."""


def run_quick_tests(folders: list[str], place: Path) -> None:
    left_out = [word for one in OF_PROC for word in ("--deselect", f"tests/{one}")]
    options = ["--fast", "-q", "-p", "no:cacheprovider", "--basetemp", str(place / "tests")]
    line = [sys.executable, "-m", "pytest", *options, *left_out, *(f"tests/{folder}" for folder in folders)]
    done = subprocess.run(line, cwd=ROOT, env=environment("macos"), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert "100%]" in done.stdout


def test_tests_that_are_left_out_exist():
    for one in OF_PROC:
        file, *names = one.split("::")
        text = (ROOT / "tests" / file).read_text()
        assert all(f"def {name}(" in text for name in names[-1:]), one


@pytest.mark.drivers
def test_quick_tests_pass_without_what_macos_lacks(tmp_path):
    run_quick_tests(QUICK, tmp_path)


@pytest.mark.soak
def test_more_tests_pass_without_what_macos_lacks(tmp_path):
    run_quick_tests(REST, tmp_path)
