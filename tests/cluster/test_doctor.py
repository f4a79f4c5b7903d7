"""What `raysp doctor` finds, where Ray does not start."""

import importlib.metadata
import os
import re
import resource
import shutil
from types import SimpleNamespace

import pytest
import torch

from tests.cluster.ray_starts import findings

pytestmark = pytest.mark.usefixtures("starts")


@pytest.fixture
def free(monkeypatch):
    """Set the bytes that are free on every disk."""
    return lambda num_bytes: monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=num_bytes))


def test_extras_are_those_of_the_package_and_missing_ones_are_no_failure(monkeypatch):
    lines = ["torch>=2.10", 'boto3>=1.36; extra == "s3"', 'jax>=0.10; extra == "jax"', "nowhere; extra == 'jax'"]
    monkeypatch.setattr(importlib.metadata, "requires", lambda _: [*lines, 'ruff>=0.8; extra == "dev"'])
    found = findings()["extras"]
    assert (found["found"], found["ok"]) == ("s3", True)
    assert found["advice"] == "not installed: jax; pip install 'raysp[NAME]' adds one"


@pytest.mark.skipif(not os.path.isdir("/dev/shm"), reason="no shared memory as a folder")
def test_little_shared_memory_is_found(free):
    free(0.4e9)
    found = findings()["shared memory"]
    assert (found["found"], found["ok"]) == ("0.4 GB free in /dev/shm", False)
    assert "--shm-size=4g" in found["advice"]
    free(0.5e9)
    assert findings()["shared memory"]["ok"]


def test_few_open_files_are_found(monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 4096))
    found = findings()["open files"]
    assert (found["found"], found["ok"]) == ("at most 256", False)
    assert "ulimit -n" in found["advice"]
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 4096))
    assert findings()["open files"]["ok"]


@pytest.mark.parametrize(("cuda", "says"), [(None, "is a build for CPUs"), ("12.8", "fits the driver")])
def test_a_gpu_that_torch_cannot_use_is_told_with_the_build_of_torch(monkeypatch, cuda, says):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    found = findings()["processors"]
    assert not found["ok"]
    assert "2 GPUs, torch cannot use CUDA" in found["found"]
    assert says in found["advice"]


def test_a_ray_that_starts_is_found(starts):
    found = findings()["local Ray"]
    assert (found["ok"], found["advice"]) == (True, "")
    assert re.fullmatch(r"started and stopped in [\d.]+ s", found["found"])
    assert (starts.seen, starts.options[0]["num_cpus"]) == (["started", "ended"], 1)


def test_a_ray_that_does_not_start_is_found_without_advice_to_ask_the_doctor(starts):
    starts.failing = 9
    found = findings()["local Ray"]
    assert not found["ok"]
    assert found["found"].startswith("the local Ray did not start: ")
    assert "raysp doctor" not in f"{found['found']} {found['advice']}"
