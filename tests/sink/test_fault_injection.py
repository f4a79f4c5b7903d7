import os
import signal
import subprocess
import sys

import pytest

from raysp import PlanError
from raysp.sink import fault_injection

PROGRAM = """
import os, sys
from raysp.sink import fault_injection
told = fault_injection.arm()
for n in range(3):
    with fault_injection.passing("shard_committed"):
        print("in", n, flush=True)
worker = os.fork()
if worker == 0:
    fault_injection.adopt(told)
    with fault_injection.passing("block_staged"):
        print("staged", flush=True)
    os._exit(0)
os.waitpid(worker, 0)
print("survived", flush=True)
"""


def die(tmp_path, at: str) -> tuple[int, list[str]]:
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, fault_injection.FAIL_AT: at, fault_injection.FOLDER: str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    return ran.returncode, ran.stdout.split("\n")[:-1]


@pytest.mark.parametrize(
    ("at", "lines"),
    [
        ("before_shard_committed:1", []),
        ("after_shard_committed:1", ["in 0"]),
        ("before_shard_committed:3", ["in 0", "in 1"]),
        ("after_block_staged:1", ["in 0", "in 1", "in 2", "staged"]),
    ],
)
def test_the_driver_is_killed_at_that_count_by_any_process(tmp_path, at, lines):
    assert die(tmp_path, at) == (-signal.SIGKILL, lines)


def test_a_count_that_is_never_reached_kills_no_process(tmp_path):
    code, lines = die(tmp_path, "after_shard_committed:9")
    assert (code, lines[-1]) == (0, "survived")


@pytest.mark.parametrize(
    "value", ["shard_committed:1", "before_shard_committed", "after_lunch:1", "after_plan_written:0"]
)
def test_an_invalid_value_is_refused_with_the_expected_ones(monkeypatch, value):
    monkeypatch.setenv(fault_injection.FAIL_AT, value)
    with pytest.raises(
        PlanError, match=rf"RAYSP_FAIL_AT='{value}': expected before_ or after_, one of plan_written, .*2"
    ):
        fault_injection.arm()


def test_without_the_variable_nothing_is_reported_or_counted(monkeypatch, tmp_path):
    monkeypatch.delenv(fault_injection.FAIL_AT, raising=False)
    monkeypatch.setenv(fault_injection.FOLDER, str(tmp_path))
    assert fault_injection.arm() == {}
    with fault_injection.passing("run_finished"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_on_another_machine_than_the_drivers_no_process_is_killed(monkeypatch, tmp_path):
    monkeypatch.setenv(fault_injection.DRIVER, str(os.getpid()))
    settings = {fault_injection.FAIL_AT: "before_run_finished:1", fault_injection.FOLDER: "/no"}
    fault_injection.adopt({**settings, fault_injection.DRIVER: str(os.getpid())})
    try:
        with fault_injection.passing("run_finished"):
            pass
    finally:
        fault_injection.adopt({})
    assert fault_injection.FAIL_AT not in os.environ
