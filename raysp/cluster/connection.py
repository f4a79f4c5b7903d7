"""The Ray cluster of a run: the one at an address, or a local one that ends with the run."""

import contextlib
import logging
import os
import shutil
import socket
from collections.abc import Iterator, Mapping
from typing import Any

from raysp.cluster import ray_session
from raysp.cluster.addresses import is_connected, refuse_on
from raysp.cluster.background import in_background
from raysp.cluster.nodes import up
from raysp.cluster.process_state import process_kept, sigterm_kept
from raysp.cluster.resources import Resources
from raysp.errors import PlanError, RunError
from raysp.words import without_password

logger = logging.getLogger(__name__)

OBJECT_STORE_BYTES = 4_000_000_000
OOM_RETRIES = 3
CONNECT_SECONDS = 10
"""Timeout of a connection to the host of an address."""
START_SECONDS = 180
"""Timeout of the start of each part of a local Ray, where Ray has a setting for it."""
STARTS = 2
"""Attempts to start a local Ray: after one that was too slow, its files are in the disk cache."""
LOOPBACK = "127.0.0.1"
GROUP_LABEL = "ray.io/node-group"
"""Label of a node that an autoscaler may have started: its group."""

_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # By default Ray indefinitely retries a task whose worker was killed for memory.
    "RAY_task_oom_retries": str(OOM_RETRIES),
    # Ray starts workers at niceness 15, at which other programs starve them: they get the command's priority.
    "RAY_worker_niceness": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_enable_metrics_collection": "0",
    # By default Ray's parts have 5 to 30 seconds to start.
    "RAY_gcs_server_port_wait_time_s": str(START_SECONDS),
    "RAY_gcs_rpc_server_connect_timeout_s": str(START_SECONDS),
    "RAY_raylet_start_wait_time_s": str(START_SECONDS),
    "RAY_agent_register_timeout_ms": str(1000 * START_SECONDS),
}
"""Settings of a local Ray. It turns on token authentication by itself, and then reads its settings again."""


@contextlib.contextmanager
def connected(address: str | None) -> Iterator[Resources]:
    """Connect to the cluster at `address`, else at RAY_ADDRESS; an existing connection is used unchanged.

    Raises:
        PlanError: nothing answers at the address, or another version of raysp is installed there.
    """
    if is_connected():
        yield cluster_resources()
        return
    named = address or os.environ["RAY_ADDRESS"]
    cluster = f"a cluster ({without_password(named)})"
    refuse_on(["macOS"], f"{cluster} is used from Linux alone; raysp submit sends the work there")
    with in_background(lambda: _connection(named)):
        yield cluster_resources()


@contextlib.contextmanager
def _connection(address: str) -> Iterator[None]:
    _check_reachable(address)
    with process_kept({}) as record_variables, _imported() as ray:
        try:
            with sigterm_kept():
                ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except Exception as error:
            raise PlanError(
                f"--address {without_password(f'{address}: {error}')}. Check that the cluster is up and that "
                "the address is its head's. A cluster with token authentication also needs RAY_AUTH_MODE=token and "
                "~/.ray/auth_token on this machine"
            ) from error
        record_variables()
        _check_same_version(address)
        yield


@contextlib.contextmanager
def local_ray(resources: Resources, *, advice: str = ". Try `raysp doctor`") -> Iterator[None]:
    """Start a local Ray in another thread, and stop it at the end; does nothing if one is connected.

    Args:
        resources: CPUs that it has.
        advice: end of the message of an error.

    Raises:
        RunError: it does not start.
    """
    with in_background(lambda: started_ray(resources, advice)):
        yield


@contextlib.contextmanager
def started_ray(resources: Resources, advice: str = ". Try `raysp doctor`") -> Iterator[None]:
    """Start a local Ray in this thread, as `local_ray`."""
    if is_connected():
        yield
        return
    with (
        process_kept({**_SETTINGS, **ray_session.token_setting()}) as record_variables,
        ray_session.session_folder() as options,
        _imported() as ray,
    ):
        try:
            _start(ray, int(resources.cpus), options)
        except Exception as error:
            raise RunError(f"the local Ray did not start: {error}{advice}") from error
        record_variables()  # with those that Ray has set
        yield


@contextlib.contextmanager
def _imported() -> Iterator[Any]:
    """Import Ray, which reads settings then, and shut it down at the end: a failed start leaves servers behind."""
    import ray

    try:
        yield ray
    finally:
        ray.shutdown()


def _start(ray: Any, cpus: int, options: Mapping[str, str]) -> None:  # noqa: ANN401 - the module
    """Start a local Ray on loopback, without an API server.

    Ray has no setting to leave it out, whose start takes seconds, but does without it if its port is taken.
    """
    with socket.create_server((LOOPBACK, 0)) as taken, _on_loopback(), sigterm_kept():
        for attempt in range(1, STARTS + 1):
            try:
                ray.init(
                    address="local",
                    num_cpus=cpus,
                    include_dashboard=False,
                    dashboard_port=taken.getsockname()[1],
                    log_to_driver=False,
                    logging_level=logging.CRITICAL,  # it reports the port as an error
                    object_store_memory=_object_store_bytes(),
                    namespace="raysp",
                    **options,
                )
            except Exception as error:
                if attempt == STARTS:
                    raise
                logger.warning("the local Ray did not start (%s); trying once more", error)
                ray.shutdown()
            else:
                return


@contextlib.contextmanager
def _on_loopback() -> Iterator[None]:
    """Make Ray take the loopback address for that of this machine, and so keep its servers there.

    It replaces `ray.init(_node_ip_address="127.0.0.1")` by the outward address, and reads its only setting at its
    import, which may have been much earlier.
    """
    import ray.util

    own = ray.util.get_node_ip_address
    ray.util.get_node_ip_address = lambda *_: LOOPBACK
    try:
        yield
    finally:
        ray.util.get_node_ip_address = own


def _object_store_bytes() -> int:
    try:
        room = shutil.disk_usage("/dev/shm").free
    except OSError:
        room = OBJECT_STORE_BYTES
    return max(80_000_000, min(OBJECT_STORE_BYTES, int(room * 0.5)))


def cluster_resources() -> Resources:
    """Return the resources of the cluster, as Ray reports them.

    Nodes with GPUs may come up if none has one, except on one machine. Ray has no public function that tells which
    groups an autoscaler may start, but labels the nodes of these groups.
    """
    import ray

    nodes = up()
    cpus = [node["Resources"].get("CPU", 0) for node in nodes]
    is_one_machine = len(nodes) == 1 and cpus[0] > 0 and not nodes[0]["Labels"].get(GROUP_LABEL)
    total = ray.cluster_resources()  # type: ignore[no-untyped-call]
    gpus = total.get("GPU", 0)
    return Resources(
        cpus=total.get("CPU", 0),
        gpus=gpus,
        node_cpus=max(cpus, default=None),
        memory=total.get("memory"),
        can_grow=True,
        gpus_may_come=not gpus and not is_one_machine,
    )


def _check_reachable(address: str) -> None:
    """Raise PlanError if nothing listens at a host and port, where Ray would wait silently for minutes."""
    host, _, port = address.rpartition(":")
    if "://" in address or not host or not port.isdecimal():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise PlanError(
            f"--address {without_password(address)}: no cluster answers there ({reason}). Check that the cluster is up "
            "and that the address is its head's, as `ray start --head` prints it; without --address or RAY_ADDRESS a "
            "run starts a local Ray"
        ) from error


def _check_same_version(address: str) -> None:
    import ray

    from raysp import __version__

    def version() -> str:
        try:
            import raysp
        except ImportError:
            return "no raysp"
        return raysp.__version__

    found = ray.get(ray.remote(version).options(num_cpus=0).remote())
    if found != __version__:
        where = without_password(address)
        raise PlanError(f"--address {where}: found {found} there, {__version__} here; install the same version")
