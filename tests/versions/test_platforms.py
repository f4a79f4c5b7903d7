"""What macOS and Windows lack, taken away from raysp on Linux in processes of their own (`lacking`)."""

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
from tests.soaked import some
from tests.versions.lacking.lacking_calls import VARIABLE

ROOT = Path(__file__).parents[2]
LACKING = Path(__file__).with_name("lacking")
SYSTEMS = ("macos", "windows")

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
import importlib
from raysp import machine, words
from raysp.audio import isolation, decoder_protocol, process_clock
from raysp.storage import locking

import os
print(machine.system(), hasattr(machine.os, "sched_getaffinity"), hasattr(os, "sched_getaffinity"))
print(hasattr(isolation.select, "poll"), decoder_protocol.can_isolate(), decoder_protocol.has_memory_limit())
print(process_clock.read_times(os.getpid()), locking.fcntl is None, machine.num_cpus() >= 1, machine.memory_bytes() > 0)
"""


@pytest.mark.parametrize(
    ("system", "expected"),
    [
        ("macos", ["macOS False True", "True True False", "None False True True"]),
        ("windows", ["Windows False True", "False False False", "None True True True"]),
        ("", ["Linux True True", "True True True", "False True True"]),
    ],
)
def test_calls_are_taken_away_from_raysp_alone(system, expected):
    lines = printed(LACKED, system).splitlines()
    assert lines[:2] == expected[:2]
    assert lines[2].endswith(expected[2])


def test_a_checkpoint_copy_is_never_removed_without_locks(tmp_path):
    program = """
import sys
from pathlib import Path
from raysp.checkpoints import user_cache
user_cache.KEPT_COPIES = 0
copy = Path(sys.argv[1]) / "copy"
copy.mkdir(parents=True)
user_cache.mark_used(copy)
user_cache.forget_used()
user_cache.remove_unused(copy.parent)
print(copy.is_dir())
"""
    assert printed(program, "windows", tmp_path / "without") == "True\n"
    assert printed(program, "", tmp_path / "with-locks") == "False\n"


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
LEFT_OUT_OF_WINDOWS = {
    "run label.py": "labelling",
    "run label.py --rows 2": "labelling",
    "retry out --trust": "labelling",
    f"evaluate {CHECKPOINT} in --text text": "labelling",
    f"{FINETUNE} --set sink.url=trained": "training",
}
"""Commands, and what they need of another system."""
ON_WINDOWS = (
    "plan label.py",
    "status out",
    "verify out --trust",
    "report out --out report.html",
    "diff out again",
    "export out texts --to jsonl",
    "export out corpus --to dataset --trust",
    f"inspect {CHECKPOINT}",
)
A_CLUSTER = "run label.py --address 127.0.0.1:1"
SEVERAL_WORKERS = f"{FINETUNE} --set sink.url=trained --set pool.actors=2"


@pytest.fixture(scope="module")
def on_windows(sink) -> dict[str, Ran]:
    return run_commands("windows", [*LEFT_OUT_OF_WINDOWS, *ON_WINDOWS, PLAN_AND_LABEL], sink)


@pytest.fixture(scope="module")
def on_macos(sink) -> dict[str, Ran]:
    return run_commands("macos", [A_CLUSTER, SEVERAL_WORKERS, PLAN_AND_LABEL], sink)


@pytest.mark.drivers
def test_plan_and_labels_are_the_same_without_what_other_systems_lack(on_windows, on_macos, sink, monkeypatch, capsys):
    monkeypatch.chdir(sink)
    exec(PLAN_AND_LABEL, {})
    expected = capsys.readouterr().out
    assert on_windows[PLAN_AND_LABEL].out == on_macos[PLAN_AND_LABEL].out == expected != ""


@pytest.mark.drivers
@pytest.mark.parametrize(("words", "work"), LEFT_OUT_OF_WINDOWS.items())
def test_what_windows_leaves_out_is_refused_in_one_sentence_before_any_work(sink, on_windows, words, work):
    said = refused(on_windows[words])
    assert said.startswith(f"raysp: Windows: {work} needs Linux or macOS, for instance in WSL 2; ")
    assert not (sink / "new").exists()
    assert not (sink / "trained").exists()


@pytest.mark.drivers
@pytest.mark.parametrize("words", ON_WINDOWS)
def test_what_windows_has_works_without_its_missing_calls(on_windows, words):
    assert on_windows[words].code == 0, on_windows[words].err
    assert on_windows[words].out


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


QUICK = {"macos": ["audio"], "windows": ["storage"]}
"""Folders of quick tests that `make test-drivers` runs. Those of `REST` belong to `make soak`. Verbs that work on
Windows, over a sink that was made elsewhere, are those of `ON_WINDOWS`."""
REST = {
    "macos": ["corpus", "labelling/finished", "ops", "sink", "specs", "storage", "text", "verbs"],
    "windows": ["specs", "text"],
}
OF_PROC = [
    "audio/test_isolation.py::test_the_child_is_given_no_secrets_and_no_files_of_its_parent",
    "audio/test_process_clock.py::test_a_process_that_computes_uses_its_cpu_time",
    "audio/test_process_clock.py::test_a_process_that_sleeps_uses_up_its_time",
    "audio/test_process_clock.py::test_a_stopped_process_uses_no_time",
    "audio/test_process_clock.py::test_while_this_process_was_paused_nothing_counts_beyond_two_steps",
    "sink/test_lease.py::test_a_dead_process_of_this_machine_is_taken_over_at_once",
    "sink/test_lease.py::test_another_process_of_the_same_number_is_not_the_owner",
    "sink/test_lease.py::test_the_same_pid_of_another_boot_or_container_has_no_meaning",
    "verbs/test_watching.py::test_states_follow_until_the_run_has_released_its_lease",
    "verbs/test_watching.py::test_the_end_of_a_killed_run_is_seen",
]
"""They show what /proc is read for: whether other processes live, work or are stopped."""
OF_WINDOWS = [
    # Locks of files.
    "storage/test_locking.py::test_a_file_system_without_locks_replaces_what_it_looked_at",
    "storage/test_locking.py::test_a_lock_that_is_held_is_waited_for_and_then_named",
    # Runs, which are refused: single tests, and files that read label shards of a run.
    "specs/test_map.py::test_a_pipeline_with_it_comes_back_from_the_record_of_its_sink",
    "specs/test_steps.py::test_every_label_shard_has_the_columns_of_the_data_contract",
    "specs/test_values.py::test_a_function_that_is_called_with_another_kind_of_work_says_which_function_takes_it",
    "storage/test_audio_root.py",
    "text/formats/test_fields.py",
    "text/formats/test_json_lines.py",
    "text/formats/test_textgrid.py",
]
LEFT_OUT = {"macos": OF_PROC, "windows": [*OF_PROC, *OF_WINDOWS]}
"""Tests of what a system does not have."""


def run_quick_tests(system: str, folders: list[str], place: Path) -> None:
    left_out = [word for one in LEFT_OUT[system] for word in ("--deselect", f"tests/{one}")]
    options = ["--fast", "-q", "-p", "no:cacheprovider", "--basetemp", str(place / "tests")]
    line = [sys.executable, "-m", "pytest", *options, *left_out, *(f"tests/{folder}" for folder in folders)]
    done = subprocess.run(line, cwd=ROOT, env=environment(system), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert "100%]" in done.stdout


def test_tests_that_are_left_out_exist():
    for one in {*OF_PROC, *OF_WINDOWS}:
        file, *names = one.split("::")
        text = (ROOT / "tests" / file).read_text()
        assert all(f"def {name}(" in text for name in names[-1:]), one


@pytest.mark.drivers
@pytest.mark.parametrize("system", some(SYSTEMS, "windows"))
def test_quick_tests_pass_without_what_other_systems_lack(system, tmp_path):
    run_quick_tests(system, QUICK[system], tmp_path)


@pytest.mark.soak
@pytest.mark.parametrize("system", SYSTEMS)
def test_more_tests_pass_without_what_other_systems_lack(system, tmp_path):
    run_quick_tests(system, REST[system], tmp_path)
