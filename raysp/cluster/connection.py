"""The Ray cluster of a run: the one at an address, or a local one that ends with the run."""

import contextlib
import logging
import os
import shutil
import socket
from collections.abc import Iterator, Mapping

from raysp.cluster.addresses import refuse_on
from raysp.cluster.process_state import Environment, fault_handler_kept, loggers_kept, sigterm_kept
from raysp.cluster.ray_start import (
    START_SECONDS,
    longer_start,
    on_loopback,
    quiet_raylet,
    quiet_start,
    reread_settings,
    servers_of_a_run,
    session_folder,
    session_token,
    signals_held,
)
from raysp.cluster.resources import Resources
from raysp.errors import PlanError, RunError
from raysp.words import without_password

logger = logging.getLogger(__name__)

OBJECT_STORE_BYTES = 4_000_000_000
OOM_RETRIES = 3
CONNECT_SECONDS = 10
"""Timeout of a connection to the host of an address."""
STARTS = 2
"""Attempts to start a local Ray."""

_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "token",
    # By default Ray indefinitely retries a task whose worker was killed for memory.
    "RAY_task_oom_retries": str(OOM_RETRIES),
    # Ray starts workers at niceness 15, at which other programs starve them: they get the command's priority.
    "RAY_worker_niceness": "0",
    # Despite its name, this setting keeps every server of a local Ray on 127.0.0.1.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_enable_metrics_collection": "0",
    # By default Ray's parts have 5 to 30 seconds to start.
    "RAY_gcs_server_port_wait_time_s": str(START_SECONDS),
    "RAY_gcs_rpc_server_connect_timeout_s": str(START_SECONDS),
    "RAY_raylet_start_wait_time_s": str(START_SECONDS),
}


@contextlib.contextmanager
def connected(address: str | None) -> Iterator[Resources]:
    """Connect to the cluster at `address`, else at RAY_ADDRESS; an existing connection is used unchanged.

    Raises:
        PlanError: nothing answers at the address, or another version of raysp is installed there.
    """
    with signals_held():
        import ray

    if ray.is_initialized():
        yield cluster_resources()
        return
    address = address or os.environ["RAY_ADDRESS"]
    named = f"a cluster ({without_password(address)})"
    refuse_on(["macOS", "Windows"], f"{named} is used from Linux alone; raysp submit sends the work there")
    with contextlib.ExitStack() as stack:
        # Otherwise Ray writes advice on its actors between the lines of a run.
        quiet = {"RAY_BACKEND_LOG_LEVEL": os.environ.get("RAY_BACKEND_LOG_LEVEL", "fatal")}
        changes = _restored_on_exit(stack, quiet)
        _check_reachable(address)
        stack.callback(ray.shutdown)
        try:
            with signals_held(), quiet_start():
                ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except Exception as error:
            raise PlanError(
                f"--address {without_password(f'{address}: {error}')}. Check that the cluster is up and that "
                "the address is its head's. A cluster with token authentication also needs RAY_AUTH_MODE=token and "
                "~/.ray/auth_token on this machine"
            ) from error
        changes.record()
        _check_same_version(address)
        yield cluster_resources()


@contextlib.contextmanager
def local_ray(resources: Resources, *, advice: str = ". Try `raysp doctor`") -> Iterator[None]:
    """Start a local Ray and stop it at the end; does nothing if one is connected.

    Args:
        resources: CPUs that it has.
        advice: end of the message of an error.

    Raises:
        RunError: it does not start.
    """
    with signals_held():
        import ray

    if ray.is_initialized():
        yield
        return
    with contextlib.ExitStack() as stack:
        changes = _restored_on_exit(stack, _SETTINGS)
        options = stack.enter_context(session_folder())
        stack.enter_context(session_token())
        stack.enter_context(on_loopback())
        # Before the start, since one that fails half-way leaves servers behind.
        stack.callback(ray.shutdown)
        stack.enter_context(longer_start())
        try:
            _start(resources, options)
        except Exception as error:
            raise RunError(f"the local Ray did not start: {error}{advice}") from error
        # Ray sets variables of its own while it starts, which are undone too.
        changes.record()
        yield


def _start(resources: Resources, options: Mapping[str, str]) -> None:
    """Start a local Ray, retrying once: after a start that was too slow, its files are in the disk cache."""
    import ray

    for attempt in range(1, STARTS + 1):
        try:
            with signals_held(), quiet_start(), servers_of_a_run() if attempt == 1 else contextlib.nullcontext():
                ray.init(
                    address="local",
                    num_cpus=int(resources.cpus),
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    object_store_memory=_object_store_bytes(),
                    namespace="raysp",
                    **options,  # type: ignore[arg-type]
                )
        except Exception as error:
            if attempt == STARTS:
                raise
            logger.warning("the local Ray did not start (%s); trying once more", error)
            ray.shutdown()
        else:
            return


def _restored_on_exit(stack: contextlib.ExitStack, settings: Mapping[str, str]) -> Environment:
    """Set environment variables, and register on the stack the undoing of Ray's changes to this process."""
    stack.enter_context(loggers_kept())
    stack.enter_context(fault_handler_kept())
    stack.enter_context(sigterm_kept())
    stack.callback(reread_settings)
    changes = Environment(settings)
    stack.callback(changes.restore)
    reread_settings()
    stack.enter_context(quiet_raylet())
    return changes


def _object_store_bytes() -> int:
    try:
        room = shutil.disk_usage("/dev/shm").free
    except OSError:
        room = OBJECT_STORE_BYTES
    return max(80_000_000, min(OBJECT_STORE_BYTES, int(room * 0.5)))


def cluster_resources() -> Resources:
    """Return the resources of the cluster, as Ray reports them."""
    import ray

    total = ray.cluster_resources()  # type: ignore[no-untyped-call]
    gpus = total.get("GPU", 0)
    nodes = [node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    is_one_machine = len(nodes) == 1 and nodes[0] > 0
    return Resources(
        cpus=total.get("CPU", 0),
        gpus=gpus,
        node_cpus=max(nodes, default=None),
        memory=total.get("memory"),
        can_grow=True,
        gpus_may_come=not gpus and _may_start("GPU", unknown=not is_one_machine),
    )


def _may_start(resource: str, *, unknown: bool) -> bool:
    """Return whether the autoscaler may start nodes with a resource; `unknown` if it has not reported its groups."""
    from ray._private import state

    try:
        most = state.state.get_max_resources_from_cluster_config()
    except Exception as error:  # not a public function of Ray
        logger.info("Ray did not return the configuration of its autoscaler: %s", error)
        most = None
    return unknown if most is None else most.get(resource, 0) > 0


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
