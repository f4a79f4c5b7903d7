"""A local Ray serves this machine and holders of its token only, with the settings of nodes of a cluster."""

import contextlib
import os
import subprocess
import sys

import psutil
import pytest
import ray

from tests.kubernetes.manifests import RAY_SETTINGS

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("local_ray")]

ASK = "import sys; from ray._raylet import GcsClient; print(len(GcsClient(address=sys.argv[1]).get_all_node_info(20)))"


def listeners() -> list[tuple[str, str]]:
    """Return (process, address) of every TCP socket on which a process of this Ray listens."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended
            listening = [one for one in process.net_connections("tcp") if one.status == psutil.CONN_LISTEN]
            found += [(process.name(), one.laddr.ip) for one in listening]
    return found


def test_the_servers_of_a_local_ray_listen_on_loopback_only():
    found = listeners()
    assert {"gcs_server", "raylet"} <= {name for name, _ in found}
    assert {address for _, address in found} <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
    servers = {part for child in psutil.Process().children() for part in child.cmdline()}
    assert not [part for part in servers if part.endswith("dashboard/dashboard.py")], "it has no API server"


def test_a_local_ray_answers_nobody_without_its_token():
    address = ray.get_runtime_context().gcs_address

    def ask(**changes: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", ASK, address]
        return subprocess.run(command, env={**os.environ, **changes}, capture_output=True, text=True, check=False)

    allowed = ask()
    assert allowed.stdout == "1\n", allowed.stderr[-1000:]
    for changes in ({"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_TOKEN": "4f1c" * 16}):
        refused = ask(**changes)
        assert refused.returncode != 0
        assert "uthenticat" in refused.stderr or "token" in refused.stderr.lower(), refused.stderr[-1000:]


def test_workers_have_the_settings_that_nodes_of_a_cluster_are_given():
    @ray.remote(num_cpus=0)
    def environment() -> dict[str, str]:
        return dict(os.environ)

    found = ray.get(environment.remote())
    assert {name: found.get(name) for name in RAY_SETTINGS} == RAY_SETTINGS
