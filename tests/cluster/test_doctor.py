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


def test_extras_are_those_of_the_package_and_missing_ones_are_no_failure(monkeypatch):
    lines = ["torch>=2.10", 'boto3>=1.36; extra == "s3"', 'jax>=0.10; extra == "jax"', "nowhere; extra == 'jax'"]
    monkeypatch.setattr(importlib.metadata, "requires", lambda _: [*lines, 'ruff>=0.8; extra == "dev"'])
    found = findings()["extras"]
    assert (found["found"], found["ok"]) == ("s3", True)
    assert found["advice"] == "not installed: jax; pip install 'raysp[NAME]' adds one"


@pytest.mark.skipif(not os.path.isdir("/dev/shm"), reason="no shared memory as a folder")
def test_little_shared_memory_and_few_open_files_are_found(monkeypatch):
    limits = {"shared memory": (0.4e9, 0.5e9), "open files": (256, 1024)}
    found = []
    for memory, files in zip(*limits.values(), strict=True):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=memory: SimpleNamespace(free=free))
        monkeypatch.setattr(resource, "getrlimit", lambda _, most=files: (most, 4096))
        found.append(findings())
    poor, enough = ({name: one[name] for name in limits} for one in found)
    assert [(one["found"], one["ok"]) for one in poor.values()] == [
        ("0.4 GB free in /dev/shm", False),
        ("at most 256", False),
    ]
    assert ["--shm-size=4g" in poor["shared memory"]["advice"], "ulimit -n" in poor["open files"]["advice"]] == [
        True
    ] * 2
    assert all(one["ok"] for one in enough.values())


@pytest.mark.parametrize(("cuda", "says"), [(None, "is a build for CPUs"), ("12.8", "fits the driver")])
def test_a_gpu_that_torch_cannot_use_is_found_with_the_build_of_torch(monkeypatch, cuda, says):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    found = findings()["processors"]
    assert not found["ok"]
    assert "2 GPUs, torch cannot use CUDA" in found["found"]
    assert says in found["advice"]


def test_whether_ray_starts_is_found_without_advice_to_ask_the_doctor(starts):
    found = findings()["local Ray"]
    assert (found["ok"], found["advice"]) == (True, "")
    assert re.fullmatch(r"started and stopped in [\d.]+ s", found["found"])
    assert (starts.seen, starts.options[0]["num_cpus"]) == (["started", "ended"], 1)
    starts.failing = 9
    found = findings()["local Ray"]
    assert (found["ok"], found["found"][:29]) == (False, "the local Ray did not start: ")
    assert "raysp doctor" not in f"{found['found']} {found['advice']}"
