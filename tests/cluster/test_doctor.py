"""What `raysp doctor` finds."""

import json
import os
import re
import resource
import subprocess
import sys
from importlib import metadata

import pytest
import torch

from tests.cluster.nodes import UNSHARE, obstacle
from tests.cluster.ray_starts import findings


def test_extras_are_those_of_the_package_and_missing_ones_are_no_failure(starts):
    found = findings()["extras"]
    advice = re.fullmatch(r"not installed: (.*); pip install 'raysp\[NAME\]' adds one", found["advice"])
    named = [*found["found"].split(", "), *(advice[1].split(", ") if advice else [])]
    extras = {*metadata.metadata("raysp").get_all("Provides-Extra")} - {"dev", "docs", "audit"}
    assert found["ok"]
    assert "s3" in found["found"].split(", ")
    assert len(named) == len({*named})
    assert {*named} <= extras


def test_few_open_files_and_a_gpu_that_torch_cannot_use_are_found(starts, monkeypatch):
    most = resource.getrlimit(resource.RLIMIT_NOFILE)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (1023, most[1]))
        few = findings()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, most)
    assert (few["open files"]["found"], few["open files"]["ok"]) == ("at most 1,023", False)
    assert "ulimit -n" in few["open files"]["advice"]
    assert findings()["open files"]["ok"] == (most[0] >= 1024)
    if not torch.cuda.is_available():
        says = "is a build for CPUs" if torch.version.cuda is None else "fits the driver"
        assert not few["processors"]["ok"]
        assert "2 GPUs, torch cannot use CUDA" in few["processors"]["found"]
        assert says in few["processors"]["advice"]


def test_a_ray_that_does_not_start_is_found_without_advice_to_ask_the_doctor(starts):
    assert findings()["local Ray"]["ok"]
    assert (starts.seen, starts.options[0]["num_cpus"]) == (["started", "ended"], 1)
    starts.failing = 9
    found = findings()["local Ray"]
    assert (found["ok"], found["found"][:29]) == (False, "the local Ray did not start: ")
    assert "raysp doctor" not in f"{found['found']} {found['advice']}"


@pytest.mark.drivers
@pytest.mark.cluster
@pytest.mark.slow
def test_little_shared_memory_is_found_and_a_real_ray_starts_in_it():
    if reason := obstacle():
        pytest.skip(reason)
    mounted = 'mount -t tmpfs -o size=300m tmpfs /dev/shm && exec "$@"'
    command = [*UNSHARE, "sh", "-c", mounted, "sh", sys.executable, "-m", "raysp", "doctor", "--json"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    found = {one["what"]: one for one in json.loads(ran.stdout)["findings"]}
    assert ran.returncode == 1, ran.stderr
    assert (found["shared memory"]["found"], found["shared memory"]["ok"]) == ("0.3 GB free in /dev/shm", False)
    assert "--shm-size=4g" in found["shared memory"]["advice"]
    assert re.fullmatch(r"started and stopped in [\d.]+ s", found["local Ray"]["found"]), found["local Ray"]
