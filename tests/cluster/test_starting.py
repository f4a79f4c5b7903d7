"""When and where a local Ray starts, in a short folder, once more if it is slow, and what it leaves in its process."""

import os
import socket
from pathlib import Path

import pytest

import raysp
from tests.cluster.ray_starts import findings
from tests.corpora import a_pipeline, digits_table, write_shard


@pytest.fixture(autouse=True)
def _without_a_token(monkeypatch, tmp_path) -> None:
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def corpus(tmp_path) -> Path:
    write_shard(tmp_path / "in" / "a.parquet", table=digits_table(2))
    return tmp_path


def test_one_that_is_too_slow_is_started_once_more_with_long_time_outs(starts, caplog):
    starts.failing = 1

    def look() -> None:  # Ray starts without its API server then, which no run uses and which takes seconds
        with pytest.raises(OSError, match="in use"):
            socket.create_server(("127.0.0.1", starts.options[-1]["dashboard_port"]))

    starts.look = look
    assert findings()["local Ray"]["ok"]
    assert starts.seen == ["started", "ended", "started", "ended"]
    assert "timed out during startup" in caplog.text
    for environment in starts.environments:
        for name in ("RAY_raylet_start_wait_time_s", "RAY_gcs_server_port_wait_time_s"):
            assert int(environment[name]) >= 120


def test_a_refusal_and_a_ray_that_does_not_start_are_reported_and_nothing_is_written(corpus, starts):
    unfit = a_pipeline(f"{corpus}/in", corpus / "out", label={"outputs": [raysp.Classes()]})
    with pytest.raises(raysp.CheckpointError, match="does not support Classes"):
        raysp.run(unfit, engine="ray", progress=False)
    assert (starts.seen, (corpus / "out").exists()) == (["started", "ended"], False)
    starts.failing = 9
    with pytest.raises(raysp.RunError, match=r"the local Ray did not start: .*timed out during startup.*raysp doctor"):
        raysp.run(a_pipeline(f"{corpus}/in", corpus / "out"), engine="ray", progress=False)
    assert len(starts.options) == 1 + 2


@pytest.mark.slow
def test_an_unfit_source_or_no_work_starts_no_ray(corpus, starts):
    with pytest.raises(raysp.PlanError):
        raysp.run(a_pipeline(raysp.Shards(f"{corpus}/in", audio="sound"), corpus / "out"), engine="ray", progress=False)
    for engine in ("here", "ray"):
        result = raysp.run(a_pipeline(f"{corpus}/in", corpus / "out"), engine=engine, progress=False)
    assert (result.shards_before, result.rows, starts.seen) == (1, 0, [])


def test_a_folder_that_is_too_long_for_sockets_is_replaced_by_a_short_one(starts, tmp_path):
    folder = tmp_path / ("slurm" * 20)
    folder.mkdir()
    for name in ("TMPDIR", "RAY_TMPDIR"):
        modes = []
        starts.look = lambda: modes.append(Path(starts.options[-1]["_temp_dir"]).stat().st_mode & 0o40077)  # noqa: B023
        assert findings(**{name: str(folder)})["local Ray"]["ok"]
        used = starts.options[-1]["_temp_dir"]
        assert modes == [0o40000]  # a folder of this user alone
        assert len(f"{used}/session_2026-01-01_00-00-00_000000_{os.getpid()}/sockets/plasma_store") <= 107
        assert not Path(used).exists()
    starts.look = object
    assert findings(TMPDIR="/tmp")["local Ray"]["ok"]
    assert "_temp_dir" not in starts.options[-1]


def test_a_home_that_cannot_be_written_gets_a_token_of_the_process_unless_the_user_has_one(starts, tmp_path):
    (tmp_path / "token").write_text("0f" * 32 + "\n")
    for variables in (
        *[{"HOME": "/proc"}] * 2,
        {"HOME": str(tmp_path)},
        {"HOME": "/proc", "RAY_AUTH_TOKEN_PATH": str(tmp_path / "token")},
    ):
        assert findings(**variables)["local Ray"]["ok"]
    first, second, *others = (environment.get("RAY_AUTH_TOKEN") for environment in starts.environments)
    assert (len(first), first) == (64, second)  # Ray reads it once
    assert others == [None, None]
    assert "RAY_AUTH_TOKEN" not in os.environ


def test_an_environment_is_restored_except_for_what_its_owner_has_changed_since(monkeypatch, starts):
    for name in ("RAY_worker_niceness", "RAY_task_oom_retries", "RAYSP_TEST_MINE"):
        monkeypatch.setenv(name, "7")
    for name in ("RAYSP_TEST_NEW", "RAYSP_TEST_LATER", "RAY_USAGE_STATS_ENABLED"):
        monkeypatch.setenv(name, "")  # so that the end of the test removes it
        monkeypatch.delenv(name)
    names = ("RAY_worker_niceness", "RAY_task_oom_retries", "RAY_USAGE_STATS_ENABLED")
    of_the_run = []

    def change_as_ray() -> None:
        of_the_run.extend(os.environ[name] for name in names)
        os.environ |= {"RAY_task_oom_retries": "9", "RAYSP_TEST_MINE": "Ray's", "RAYSP_TEST_NEW": "Ray's"}

    def change_as_the_owner() -> None:
        os.environ |= {"RAYSP_TEST_LATER": "the owner's", "RAY_USAGE_STATS_ENABLED": "the owner's"}

    starts.look, starts.at_end = change_as_ray, change_as_the_owner
    assert findings()["local Ray"]["ok"]
    assert of_the_run == ["7", "7", "0"]  # what the owner has set stays
    assert [os.environ[name] for name in names] == ["7", "7", "the owner's"]
    assert (os.environ["RAYSP_TEST_MINE"], os.environ["RAYSP_TEST_LATER"]) == ("7", "the owner's")
    assert "RAYSP_TEST_NEW" not in os.environ
