"""Session folder and token of a local Ray."""

import os
from pathlib import Path

import pytest
import ray
from ray._raylet import AuthenticationTokenLoader

from raysp import RunError
from raysp.cluster import connection, doctor, ray_start
from raysp.cluster.resources import Resources
from tests.runs import shared_ray


@pytest.fixture
def started(monkeypatch):
    """Options and tokens with which Ray would start."""
    shared_ray.end()  # it would lose its token
    seen = []
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(ray, "init", lambda **options: seen.append((options, os.environ.get("RAY_AUTH_TOKEN"))))
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    loader = AuthenticationTokenLoader.instance()
    loader.reset_cache()
    yield seen
    loader.reset_cache()


@pytest.mark.parametrize("name", ["TMPDIR", "RAY_TMPDIR"])
def test_a_folder_that_is_too_long_for_sockets_is_replaced_by_a_short_one(started, monkeypatch, tmp_path, name):
    folder = tmp_path / ("slurm" * 20)
    folder.mkdir()
    monkeypatch.setenv(name, str(folder))
    with connection.local_ray(Resources(cpus=1)):
        [(options, _)] = started
        used = Path(options["_temp_dir"])
        assert used.is_dir()
        assert used.stat().st_mode & 0o077 == 0
        assert len(f"{used}/session_2026-01-01_00-00-00_000000_{os.getpid()}/sockets/plasma_store") <= 107
    assert not used.exists()


def test_a_short_folder_is_used_as_ray_does(started, monkeypatch):
    monkeypatch.setenv("TMPDIR", "/tmp")
    with connection.local_ray(Resources(cpus=1)):
        [(options, _)] = started
        assert "_temp_dir" not in options


def test_without_any_short_folder_the_variable_to_set_is_named(started, monkeypatch, tmp_path):
    monkeypatch.setenv("TMPDIR", str(tmp_path / ("slurm" * 20)))
    monkeypatch.setattr(ray_start.tempfile, "mkdtemp", lambda **_: (_ for _ in ()).throw(PermissionError()))
    with pytest.raises(RunError, match="Set RAY_TMPDIR to a short folder"), connection.local_ray(Resources(cpus=1)):
        pass
    assert started == []


def test_a_home_that_cannot_be_written_gets_a_token_of_the_run(started, monkeypatch):
    monkeypatch.setenv("HOME", "/proc")
    with connection.local_ray(Resources(cpus=1)):
        [(_, token)] = started
        assert len(token) == 64
    assert "RAY_AUTH_TOKEN" not in os.environ


def test_a_home_that_can_be_written_keeps_the_token_of_ray(started, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    with connection.local_ray(Resources(cpus=1)):
        assert started[0][1] is None


def test_the_doctor_does_not_advise_itself(started, monkeypatch):
    monkeypatch.setattr(ray, "init", lambda **_: (_ for _ in ()).throw(OSError("no")))
    found = doctor._ray()
    assert not found.ok
    assert "raysp doctor" not in f"{found.found} {found.advice}"
