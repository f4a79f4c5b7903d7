"""A local Ray that is slow to start."""

import subprocess
import sys
import time

import pytest
from ray._private import services
from ray._private.node import Node

import raysp
from tests.cluster.ray_starts import findings
from tests.corpora import a_pipeline, write_shard
from tests.kit import pipeline_file
from tests.s3_servers import free_port


def test_one_that_is_too_slow_is_started_once_more_with_long_time_outs(starts, caplog):
    starts.failing = 1
    assert findings()["local Ray"]["ok"]
    assert starts.seen == ["started", "ended", "started", "ended"]
    assert "timed out during startup" in caplog.text
    for environment in starts.environments:
        for name in ("RAY_raylet_start_wait_time_s", "RAY_gcs_server_port_wait_time_s"):
            assert int(environment[name]) >= 120


def test_only_the_servers_of_a_run_are_started_and_all_of_them_where_that_failed(starts):
    names = ("start_api_server", "start_log_monitor", "start_monitor")
    own = {name: getattr(Node, name) for name in names}
    replaced = []

    def changed() -> list[str]:
        return [name for name in names if getattr(Node, name) is not own[name]]

    starts.failing, starts.look = 1, lambda: replaced.append(changed())
    assert findings()["local Ray"]["ok"]
    assert replaced == [[*names], []]
    assert changed() == []


def test_one_that_does_not_start_twice_ends_the_run_with_the_reason(starts, tmp_path):
    starts.failing = 9
    write_shard(tmp_path / "in" / "a.parquet", 1)
    with pytest.raises(raysp.RunError, match=r"the local Ray did not start: .*timed out during startup.*raysp doctor"):
        raysp.run(a_pipeline(f"{tmp_path}/in", tmp_path / "out"), engine="ray", progress=False)
    assert len(starts.options) == 2


def test_a_node_is_waited_for_longer_than_ray_does(starts, monkeypatch):
    """Ray gives up 30 seconds after a node could not be found for the first time."""
    clock = [0.0]

    def get_node(address: str, node_id: str) -> str:
        if clock[0] < 100:
            raise RuntimeError(f"{node_id} is not there yet")
        return address

    def look() -> None:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(time, "monotonic", lambda: clock[0])
            patched.setattr(time, "sleep", lambda seconds: clock.__setitem__(0, clock[0] + seconds))
            assert services.get_node("here", "7") == "here"
            clock[0] = -1000.0
            with pytest.raises(RuntimeError, match="7 is not there yet"):
                services.get_node("here", "7")

    starts.look = look
    monkeypatch.setattr(services, "get_node", get_node)
    assert findings()["local Ray"]["ok"]
    assert services.get_node is get_node


_IN_A_KERNEL = """
import sys, types

class ZMQInteractiveShell:
    events = types.SimpleNamespace(register=lambda *_: None)

for name in ("IPython", "ipykernel", "ipykernel.zmqshell"):
    sys.modules[name] = types.ModuleType(name)
sys.modules["IPython"].get_ipython = ZMQInteractiveShell
sys.modules["ipywidgets"] = None
"""


@pytest.mark.slow
def test_an_import_of_ray_in_a_notebook_gives_no_advice_on_packages(tmp_path):
    write_shard(tmp_path / "in" / "a.parquet", 1)
    file = pipeline_file(tmp_path / "made.py", a_pipeline(f"{tmp_path}/in", tmp_path / "out"))
    line = ["run", str(file), "--address", f"127.0.0.1:{free_port()}"]
    stopped = f"from raysp.cli import main\ntry:\n    main({line})\nexcept SystemExit:\n    import ray, tqdm.auto\n"
    said = _said(f"{_IN_A_KERNEL}{stopped}")
    assert "no cluster answers there" in said
    assert "ipywidgets" not in said
    assert "ipywidgets" in _said(f"{_IN_A_KERNEL}import ray")  # what would be said


def _said(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return done.stdout + done.stderr
