"""The Ray that a run uses: the one at an address, or a fresh local one that ends with it."""

import contextlib
import logging
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from typing import Any

from raysp.errors import PlanError, RunError
from raysp.planning import Resources

logger = logging.getLogger(__name__)

OBJECT_STORE_BYTES = 4_000_000_000
OOM_RETRIES = 3

_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "token",
    # Ray retries a task whose worker was killed for memory without end unless this says otherwise.
    "RAY_task_oom_retries": str(OOM_RETRIES),
    # Ray would have its workers stand behind every other program of the machine; they are what this one is for.
    "RAY_worker_niceness": "0",
    # What looks like a switch for other systems is the one that keeps every server of a local Ray on 127.0.0.1.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
}


def is_cluster(address: str | None) -> bool:
    """Tell whether a run uses a Ray that is there already: at an address, or connected by this process."""
    ray = sys.modules.get("ray")
    return bool(address or os.environ.get("RAY_ADDRESS") or (ray and ray.is_initialized()))


@contextlib.contextmanager
def connected(address: str | None) -> Iterator[Resources]:
    """Connect to the cluster at `address`, else at RAY_ADDRESS; one that is connected already is used as it is.

    Raises:
        PlanError: nothing answers at the address, or another raysp is installed there.
    """
    import ray

    if ray.is_initialized():
        yield _cluster_resources()
        return
    address = address or os.environ["RAY_ADDRESS"]
    try:
        with _quiet_start():
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:
        raise PlanError(f"--address {address}: {error}. Is the cluster up, and is the address its head's?") from error
    _quiet_raylet()
    try:
        _check_same_version(address)
        yield _cluster_resources()
    finally:
        ray.shutdown()


@contextlib.contextmanager
def local_ray(resources: Resources) -> Iterator[None]:
    """Start a Ray of one's own and stop it at the end; does nothing where one is connected.

    Raises:
        RunError: it does not start.
    """
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    import ray

    if ray.is_initialized():
        yield
        return
    _reread_settings()
    try:
        with _quiet_start():
            ray.init(
                address="local",
                num_cpus=int(resources.cpus),
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                object_store_memory=_object_store_bytes(),
                namespace="raysp",
            )
    except Exception as error:
        raise RunError(f"the local Ray did not start: {error}. Try `raysp doctor`") from error
    _quiet_raylet()
    try:
        yield
    finally:
        ray.shutdown()


def _quiet_raylet() -> None:
    """Send what the raylet says of each dead worker to the log: Ray prints it on stdout, which no switch prevents.

    What matters of it is told by the run itself.
    """
    from ray._private import worker

    if hasattr(worker, "print_to_stdstream"):
        worker.print_to_stdstream = _log_lines


def _log_lines(data: Mapping[str, Any], ignore_prefix: bool = False) -> None:
    for line in data["lines"]:
        logger.info("%s: %s", data["pid"], line)


def _reread_settings() -> None:
    """Have Ray look at its environment again: it does when it is first imported, which may have been long before."""
    from ray._raylet import Config  # type: ignore[attr-defined]

    Config.initialize("")


def _object_store_bytes() -> int:
    try:
        room = shutil.disk_usage("/dev/shm").free
    except OSError:
        room = OBJECT_STORE_BYTES
    return max(80_000_000, min(OBJECT_STORE_BYTES, int(room * 0.5)))


@contextlib.contextmanager
def _quiet_start() -> Iterator[None]:
    """Keep Ray's own announcements, which no switch of its reaches, off the terminal; an error shows them.

    A handler of SIGTERM that stood before is put back: Ray sets its own, which leaves without a word. If that has
    happened while Ray started, the one that stood before is called after all.
    """
    handler = signal.getsignal(signal.SIGTERM)
    terminated = False
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            yield
        except SystemExit as stop:
            if stop.code != signal.SIGTERM or not callable(handler):
                raise
            terminated = True
        except Exception as error:
            said.seek(0)
            error.add_note(said.read().decode(errors="replace"))
            raise
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            if callable(handler) and threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, handler)
    if terminated and callable(handler):
        handler(signal.SIGTERM, None)


def _cluster_resources() -> Resources:
    """Ask Ray for the cluster's CPUs and GPUs."""
    import ray

    total = ray.cluster_resources()  # type: ignore[no-untyped-call]
    gpus = total.get("GPU", 0)
    return Resources(
        cpus=total.get("CPU", 0), gpus=gpus, memory=total.get("memory"), gpu_memory=_gpu_memory() if gpus else None
    )


def _gpu_memory() -> float | None:
    """Ask one node with a GPU how much memory that has; None where none answers soon, for instance before it starts."""
    import ray

    from raysp.planning import gpu_memory

    try:
        found: float | None = ray.get(ray.remote(gpu_memory).options(num_cpus=0, num_gpus=0.01).remote(), timeout=60)
    except ray.exceptions.RayError as error:
        logger.warning("no node said how much memory its GPU has: %s", error)
        return None
    return found


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
        raise PlanError(f"--address {address}: found {found} there, {__version__} here; install the same version")
