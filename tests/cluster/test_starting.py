"""A local Ray that is slow to start."""

import socket

import psutil
import pytest

import raysp
from tests.cluster.ray_starts import findings
from tests.corpora import a_pipeline, write_shard


def test_one_that_is_too_slow_is_started_once_more_with_long_time_outs(starts, caplog):
    starts.failing = 1
    assert findings()["local Ray"]["ok"]
    assert starts.seen == ["started", "ended", "started", "ended"]
    assert "timed out during startup" in caplog.text
    for environment in starts.environments:
        for name in ("RAY_raylet_start_wait_time_s", "RAY_gcs_server_port_wait_time_s"):
            assert int(environment[name]) >= 120


def test_its_api_server_has_a_port_that_is_taken(starts):
    """Ray starts without the server then, which no run uses and which takes seconds."""

    def look() -> None:
        with pytest.raises(OSError, match="in use"):
            socket.create_server(("127.0.0.1", starts.options[-1]["dashboard_port"]))

    starts.failing, starts.look = 1, look
    assert findings()["local Ray"]["ok"]
    assert len(starts.options) == 2


@pytest.mark.cluster
def test_a_local_ray_has_no_api_server(local_ray):
    servers = {part for child in psutil.Process().children() for part in child.cmdline()}
    assert not [part for part in servers if part.endswith("dashboard/dashboard.py")]


def test_one_that_does_not_start_twice_ends_the_run_with_the_reason(starts, tmp_path):
    starts.failing = 9
    write_shard(tmp_path / "in" / "a.parquet", 1)
    with pytest.raises(raysp.RunError, match=r"the local Ray did not start: .*timed out during startup.*raysp doctor"):
        raysp.run(a_pipeline(f"{tmp_path}/in", tmp_path / "out"), engine="ray", progress=False)
    assert len(starts.options) == 2
