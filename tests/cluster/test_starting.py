"""A local Ray that is slow to start."""

import os
import subprocess
import sys
import time

import pytest
import ray
from ray._private import services
from ray._private.node import Node

from raysp import RunError
from raysp.cluster import connection, ray_start
from raysp.cluster.resources import Resources

SLOW = "The current node timed out during startup. This could happen because some of the raylet failed to startup"


@pytest.fixture
def starts(monkeypatch):
    """Ray's starts, each with the settings that it saw; the first so many fail."""
    seen = []

    def failing(times: int) -> list[dict[str, str]]:
        def init(**_: object) -> None:
            seen.append({name: value for name, value in os.environ.items() if name in connection._SETTINGS})
            if len(seen) <= times:
                raise Exception(SLOW)  # as Ray does

        monkeypatch.setattr(ray, "is_initialized", lambda: False)
        monkeypatch.setattr(ray, "init", init)
        monkeypatch.setattr(ray, "shutdown", lambda: None)
        return seen

    return failing


def test_one_that_is_too_slow_is_started_once_more_with_long_time_outs(starts, caplog):
    seen = starts(1)
    with connection.local_ray(Resources(cpus=2)):
        assert len(seen) == 2
    assert "timed out during startup" in caplog.text
    for name in ("RAY_raylet_start_wait_time_s", "RAY_gcs_server_port_wait_time_s"):
        assert int(seen[0][name]) >= 120


def test_only_the_servers_of_a_run_are_started_and_all_of_them_where_that_failed(starts, monkeypatch):
    names = ("start_api_server", "start_log_monitor", "start_monitor")
    own = {name: getattr(Node, name) for name in names}
    starts(1)
    init, replaced = ray.init, []
    monkeypatch.setattr(ray, "init", lambda **k: replaced.append(changed()) or init(**k))

    def changed() -> list[str]:
        return [name for name in names if getattr(Node, name) is not own[name]]

    with connection.local_ray(Resources(cpus=2)):
        assert replaced == [list(names), []]
    assert changed() == []


def test_one_that_does_not_start_twice_ends_the_run_with_the_reason(starts):
    seen = starts(9)
    with (
        pytest.raises(RunError, match=r"the local Ray did not start: .*timed out during startup.*raysp doctor"),
        connection.local_ray(Resources(cpus=2)),
    ):
        pass
    assert len(seen) == 2


def test_a_node_is_waited_for_longer_than_ray_does(monkeypatch):
    """Ray gives up 30 seconds after a node could not be found for the first time."""
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(time, "sleep", lambda seconds: clock.__setitem__(0, clock[0] + seconds))

    def get_node(address: str, node_id: str) -> str:
        if clock[0] < 100:
            raise RuntimeError(f"{node_id} is not there yet")
        return address

    monkeypatch.setattr(services, "get_node", get_node)
    with ray_start.longer_start():
        assert services.get_node("here", "7") == "here"
    clock[0] = -1000.0
    with ray_start.longer_start(), pytest.raises(RuntimeError, match="7 is not there yet"):
        services.get_node("here", "7")
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
def test_an_import_of_ray_in_a_notebook_gives_no_advice_on_packages():
    imported = "from raysp.cluster.ray_start import signals_held\nwith signals_held():\n    import ray, tqdm.auto"
    assert _said(f"{_IN_A_KERNEL}{imported}") == ""
    assert "ipywidgets" in _said(f"{_IN_A_KERNEL}import ray")  # what would be said


def _said(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return done.stdout + done.stderr
