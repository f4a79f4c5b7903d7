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


def environment(system: str) -> dict[str, str]:
    return {**os.environ, VARIABLE: system, "PYTHONPATH": str(LACKING)}


LACKED = """
from raysp import bounds, devices
from raysp.labelling.engine import process_clock

import os
print(devices.system(), hasattr(devices.os, "sched_getaffinity"))
print(bounds.has_memory_limit())
print(process_clock.read_times(os.getpid()), devices.num_cpus() >= 1, devices.memory_bytes() > 0)
"""


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


FINETUNE = f"finetune {ROOT}/pipelines/finetune_ctc.py"
A_CLUSTER = "run label.py --address 127.0.0.1:1"
SEVERAL_WORKERS = f"{FINETUNE} --set sink.url=trained --set pool.actors=2"


@pytest.mark.drivers
def test_macos_labels_as_linux_does_trains_and_refuses_what_it_lacks(sink):
    training = f"{FINETUNE} --steps 1 --set batching.seconds=8"
    done = run_commands("macos", ["run label.py", training, A_CLUSTER, SEVERAL_WORKERS, LACKED], sink)
    assert {words: done[words].err for words in ("run label.py", training, LACKED) if done[words].code} == {}
    assert row_hash(sink / "new") == row_hash(sink / "out")
    assert done[LACKED].out.splitlines()[:2] == ["macOS False", "False"]
    assert done[LACKED].out.endswith("None True True\n")
    refused = {A_CLUSTER: "macOS: a cluster (127.0.0.1:1) is used from Linux alone; raysp submit"}
    refused[SEVERAL_WORKERS] = "macOS: training by several workers or on a cluster needs Linux; use one worker here"
    for words, said in refused.items():
        assert (done[words].code, done[words].out) == (2, "")
        assert done[words].err.splitlines()[-1].startswith(f"raysp: {said}")


@pytest.mark.drivers
def test_quick_tests_of_audio_pass_without_what_macos_lacks(tmp_path):
    of_proc = "leave_no_process or no_secrets_and_no_files"  # they look at /proc themselves
    options = [
        "--fast",
        "-q",
        "-p",
        "no:cacheprovider",
        "--basetemp",
        str(tmp_path / "tests"),
        "-k",
        f"not ({of_proc})",
    ]
    line = [sys.executable, "-m", "pytest", *options, "tests/audio"]
    done = subprocess.run(line, cwd=ROOT, env=environment("macos"), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert "100%]" in done.stdout
