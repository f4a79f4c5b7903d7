"""What `raysp doctor` finds without starting Ray."""

import importlib.metadata
import shutil
from types import SimpleNamespace

import pytest
import torch

from raysp.cluster import doctor


@pytest.fixture
def free(monkeypatch):
    """Set the bytes that are free on every disk."""
    return lambda num_bytes: monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=num_bytes))


def test_extras_are_those_of_the_package_and_missing_ones_are_no_failure(monkeypatch):
    lines = ["torch>=2.10", 'av>=15; extra == "av"', 'jax>=0.10; extra == "jax"', "nowhere; extra == 'jax'"]
    monkeypatch.setattr(importlib.metadata, "requires", lambda _: [*lines, 'ruff>=0.8; extra == "dev"'])
    found = doctor._extras()
    assert (found.found, found.ok) == ("av", True)
    assert found.advice == "not installed: jax; pip install 'raysp[NAME]' adds one"


def test_extras_of_this_installation_are_named():
    assert {"av", "s3", "transformers", "kenlm"} <= {*doctor._packages_of_extras()}
    assert not doctor.DEVELOPMENT & {*doctor._packages_of_extras()}


def test_a_full_disk_is_found(free, monkeypatch, tmp_path):
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / "not" / "yet" / "made"))
    free(1e9)
    found = doctor._disk()
    assert (found.found, found.ok) == (f"1.0 GB free in {tmp_path}", False)
    assert "RAY_TMPDIR" in found.advice
    free(3e9)
    assert doctor._disk().ok


def test_a_cache_that_is_not_made_yet_is_sought_where_it_would_be(free, monkeypatch, tmp_path):
    free(3e9)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home" / ".cache"))
    found = doctor._cache()
    assert found.ok
    assert found.found.startswith(f"{tmp_path}/home/.cache/raysp, 3.0 GB free")


def test_a_cache_that_cannot_be_made_is_found(free, monkeypatch, tmp_path):
    free(3e9)
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    found = doctor._cache()
    assert not found.ok
    assert found.advice.startswith(f"{tmp_path}/file cannot be written")


@pytest.mark.parametrize(("cuda", "says"), [(None, "is a build for CPUs"), ("12.8", "fits the driver")])
def test_a_gpu_that_torch_cannot_use_is_told_with_the_build_of_torch(monkeypatch, cuda, says):
    monkeypatch.setattr(doctor, "count_gpus", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    found = doctor._processors()
    assert not found.ok
    assert says in found.advice
