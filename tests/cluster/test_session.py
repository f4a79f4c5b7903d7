"""Session folder and token of a local Ray."""

import os
import tempfile
from pathlib import Path

import pytest

from tests.cluster.ray_starts import findings


@pytest.fixture(autouse=True)
def _without_a_token(monkeypatch, tmp_path) -> None:
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


def started(starts, **variables: str) -> None:
    """Start and stop a local Ray."""
    before = len(starts.options)
    assert findings(**variables)["local Ray"]["ok"]
    assert len(starts.options) == before + 1


@pytest.mark.parametrize("name", ["TMPDIR", "RAY_TMPDIR"])
def test_a_folder_that_is_too_long_for_sockets_is_replaced_by_a_short_one(starts, tmp_path, name):
    folder = tmp_path / ("slurm" * 20)
    folder.mkdir()
    modes = []
    starts.look = lambda: modes.append(Path(starts.options[0]["_temp_dir"]).stat().st_mode & 0o40077)
    started(starts, **{name: str(folder)})
    used = starts.options[0]["_temp_dir"]
    assert modes == [0o40000]  # a folder of this user alone
    assert len(f"{used}/session_2026-01-01_00-00-00_000000_{os.getpid()}/sockets/plasma_store") <= 107
    assert not Path(used).exists()


def test_a_short_folder_is_used_as_ray_does(starts):
    started(starts, TMPDIR="/tmp")
    assert "_temp_dir" not in starts.options[0]


def test_without_any_short_folder_the_variable_to_set_is_named(starts, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "mkdtemp", lambda **_: (_ for _ in ()).throw(PermissionError()))
    found = findings(TMPDIR=str(tmp_path / ("slurm" * 20)))["local Ray"]
    assert "Set RAY_TMPDIR to a short folder" in found["found"]
    assert starts.options == []


def test_a_home_that_cannot_be_written_gets_a_token_of_the_process(starts):
    started(starts, HOME="/proc")
    started(starts, HOME="/proc")
    first, second = (environment["RAY_AUTH_TOKEN"] for environment in starts.environments)
    assert len(first) == 64
    assert first == second  # Ray reads it once
    assert "RAY_AUTH_TOKEN" not in os.environ


def test_a_home_that_can_be_written_keeps_the_token_of_ray(starts, tmp_path):
    started(starts, HOME=str(tmp_path))
    assert "RAY_AUTH_TOKEN" not in starts.environments[0]


def test_a_token_of_the_user_is_used_where_the_home_cannot_be_written(starts, tmp_path):
    (tmp_path / "token").write_text("0f" * 32 + "\n")
    started(starts, HOME="/proc", RAY_AUTH_TOKEN_PATH=str(tmp_path / "token"))
    assert "RAY_AUTH_TOKEN" not in starts.environments[0]
