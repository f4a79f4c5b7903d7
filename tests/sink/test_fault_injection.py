"""RAYSP_FAIL_AT kills a run at a passing of a phase, in whichever process it is counted."""

import json
import signal
import subprocess
import sys

import pytest

from tests.corpora import a_pipeline, write_shard
from tests.kit import label_shards, pipeline_file, run

PHASES = "plan_written, piece_staged, shard_committed, stage_removed, run_finished"


@pytest.fixture
def line(tmp_path) -> list[object]:
    """A run over three shards of a row each."""
    for name in "abc":
        write_shard(tmp_path / "in" / f"{name}.parquet", 1)
    return ["run", pipeline_file(tmp_path / "made.py", a_pipeline(f"{tmp_path}/in/*.parquet", tmp_path / "out"))]


PROGRAM = """
import json, os, sys
import torch
import raysp.models
from raysp.cli import main

codes = []
for environment, arguments in json.loads(sys.argv[1]):
    child = os.fork()
    if not child:
        os.environ |= environment
        try:
            main(arguments)
        except SystemExit as stop:
            os._exit(int(stop.code or 0))
    codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(json.dumps(codes))
"""
"""Runs of the command line one after the other, each in a process of its own that needs no time for imports."""


@pytest.mark.drivers
def test_a_run_is_killed_at_a_count_of_all_processes_and_never_where_it_is_not_reached(tmp_path, line):
    cases = [
        ("after_shard_committed:1", "b", (-signal.SIGKILL, 1)),
        ("before_shard_committed:3", "c", (-signal.SIGKILL, 2)),
        ("after_shard_committed:4", "d", (0, 3)),
        ("after_shard_committed:4", "d", (-signal.SIGKILL, 1)),  # of a run after the one above
        ("before_shard_committed:1", "not there", (0, 3)),  # on another machine than that of the counts
    ]
    runs = []
    for number, (at, folder, _) in enumerate(cases):
        if folder != "not there":
            (tmp_path / folder).mkdir(exist_ok=True)
        environment = {"RAYSP_FAIL_AT": at, "RAYSP_FAIL_FOLDER": f"{tmp_path}/{folder}", "RAYSP_ENGINE": "here"}
        runs.append((environment, [*map(str, line), "--set", f"sink.url={tmp_path}/out-{number}"]))
    command = [sys.executable, "-c", PROGRAM, json.dumps(runs)]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    codes = json.loads(ran.stdout.splitlines()[-1])
    committed = [len(label_shards(tmp_path / f"out-{number}")) for number in range(len(cases))]
    assert [*zip(codes, committed, strict=True)] == [expected for *_, expected in cases]


@pytest.mark.parametrize("value", ["shard_committed:1", "after_lunch:1"])
def test_an_invalid_value_is_refused_with_the_expected_ones(tmp_path, line, value):
    found = run(line, RAYSP_FAIL_AT=value)
    assert found.code == 2
    assert f"RAYSP_FAIL_AT='{value}': expected before_ or after_, one of {PHASES}, " in found.err
    assert found.err.rstrip().endswith("and a count from 1, such as after_shard_committed:2")
    assert label_shards(tmp_path / "out") == {}
