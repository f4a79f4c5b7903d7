"""The Ray cluster of a run: the one at an address, or a local one that ends with the run."""

import contextlib
import ctypes
import faulthandler
import functools
import logging
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from raysp.cluster.addresses import is_connected, refuse_on
from raysp.cluster.resources import Resources, up
from raysp.errors import PlanError, RunError
from raysp.words import without_password

logger = logging.getLogger(__name__)

OBJECT_STORE_BYTES = 4_000_000_000
OOM_RETRIES = 3
CONNECT_SECONDS = 10
"""Timeout of a connection to the host of an address."""
START_SECONDS = 180
"""Timeout of the start of each part of a local Ray, where Ray has a setting for it."""
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
MAX_SOCKET_BYTES = 103 if sys.platform == "darwin" else 107
"""Longest path of a socket that systems admit."""
SIGACTION_BYTES = 1024
"""At least the size of `struct sigaction`."""


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
        process_kept({**_SETTINGS, **token_setting()}) as record_variables,
        session_folder() as options,
        _imported() as ray,
    ):
        try:
            _start(ray, int(resources.cpus), options)
        except Exception as error:
            raise RunError(f"the local Ray did not start: {error}{advice}") from error
        record_variables()  # including variables set by Ray
        yield


@contextlib.contextmanager
def _imported() -> Iterator[Any]:
    """Import Ray, which reads settings then, and shut it down at the end: a failed start leaves servers running."""
    import ray

    try:
        yield ray
    finally:
        ray.shutdown()


def _start(ray: Any, cpus: int, options: Mapping[str, str]) -> None:  # noqa: ANN401 - the module
    """Start a local Ray on loopback, without an API server."""
    # Ray has no setting to leave it out, whose start takes seconds, but does without it if its port is taken.
    with socket.create_server((LOOPBACK, 0)) as server, _on_loopback(), sigterm_kept():
        start = functools.partial(
            ray.init,
            address="local",
            num_cpus=cpus,
            include_dashboard=False,
            dashboard_port=server.getsockname()[1],
            log_to_driver=False,
            logging_level=logging.CRITICAL,  # it reports the port as an error
            object_store_memory=_object_store_bytes(),
            namespace="raysp",
            **options,
        )
        try:
            start()
        except Exception as error:  # it was too slow, and now its files are in the disk cache
            logger.warning("the local Ray did not start (%s); trying once more", error)
            ray.shutdown()
            start()


@contextlib.contextmanager
def _on_loopback() -> Iterator[None]:
    """Make Ray use the loopback address as the address of this machine, so that its servers stay local."""
    # It replaces `ray.init(_node_ip_address="127.0.0.1")` by the outward address, and reads its only setting at its
    # import, which may have been much earlier.
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

    there = ray.get(ray.remote(version).options(num_cpus=0).remote())
    if there != __version__:
        where = without_password(address)
        raise PlanError(f"--address {where}: found {there} there, {__version__} here; install the same version")


def own_token() -> str | None:
    """Return this user's token, found as Ray does: RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH, or ~/.ray/auth_token."""
    if token := os.environ.get("RAY_AUTH_TOKEN", "").strip():
        return token
    path = os.environ.get("RAY_AUTH_TOKEN_PATH") or os.path.expanduser("~/.ray/auth_token")  # noqa: PTH111
    try:
        return Path(path).read_text().strip() or None
    except (OSError, ValueError):
        return None


def token_setting() -> Mapping[str, str]:
    """Return a token for a local Ray if this user has none and Ray cannot write one to ~/.ray."""
    home = Path(os.path.expanduser("~"))  # noqa: PTH111 - Path.home fails for users without an entry
    if own_token() or (home.is_absolute() and _is_writable(home / ".ray")):
        return {}
    return {"RAY_AUTH_TOKEN": _PROCESS_TOKEN}


_PROCESS_TOKEN = secrets.token_hex(32)  # Ray reads a token once per process


def default_folder() -> str:
    """Return the folder in which Ray creates the folders of its sessions."""
    return os.path.join(os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp", "ray")  # noqa: PTH118


@contextlib.contextmanager
def session_folder() -> Iterator[Mapping[str, str]]:
    """Yield options of `ray.init` for a short folder, removed at the end, if Ray's folder is too long or not writable.

    Objects that do not fit into memory are written to the long one, which a batch system may have sized for it.
    After an error the short folder stays, for its logs.

    Raises:
        RunError: there is no folder that sessions fit in.
    """
    usual = default_folder()
    can_write = _is_writable(Path(usual))
    if can_write and _fits(usual):
        yield {}
        return
    folder = _short_folder(usual)
    logger.info("sockets of the local Ray are in %s: %s is too long for them or not writable", folder, usual)
    yield {"_temp_dir": folder, **({"object_spilling_directory": usual} if can_write else {})}
    shutil.rmtree(folder, ignore_errors=True)


def _short_folder(usual: str) -> str:
    places = [os.environ.get("XDG_RUNTIME_DIR"), "/tmp", "/var/tmp", "/dev/shm"]
    for place in filter(None, places):
        with contextlib.suppress(OSError):
            folder = tempfile.mkdtemp(prefix="raysp-", dir=place)
            if _fits(folder):
                return folder
            Path(folder).rmdir()
    raise RunError(
        f"the local Ray needs a folder for its sockets: {usual} (of TMPDIR or RAY_TMPDIR) is too long for their paths "
        f"of at most {MAX_SOCKET_BYTES} bytes, or not writable, and so are {', '.join(filter(None, places))}. Set "
        "RAY_TMPDIR to a short folder that can be written"
    )


def _fits(folder: str) -> bool:
    """Return whether the paths of the sockets of a session are short enough."""
    session = f"session_{time.strftime('%Y-%m-%d_%H-%M-%S')}_000000_{os.getpid()}"
    return len(os.fsencode(f"{folder}/{session}/sockets/plasma_store.1")) <= MAX_SOCKET_BYTES


def _is_writable(folder: Path) -> bool:
    """Return whether files can be created in a folder, which is created if needed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


@contextlib.contextmanager
def process_kept(settings: Mapping[str, str]) -> Iterator[Callable[[], None]]:
    """Set environment variables, and undo on exit Ray's changes to this process: variables, loggers, fault handler.

    Yields a function that records which variables have changed, for after the start of Ray. Those that the caller has
    changed since stay.

    Args:
        settings: variables to set; variables that are already set keep their values.
    """
    before, changed = dict(os.environ), dict[str, str]()

    def record() -> None:
        changed.update((name, value) for name, value in os.environ.items() if before.get(name) != value)

    for name, value in settings.items():
        os.environ.setdefault(name, value)
    record()
    had_fault_handler = faulthandler.is_enabled()
    names = {"ray", *(name for name in logging.root.manager.loggerDict if name.startswith("ray."))}
    loggers = [logging.getLogger(name) for name in names]
    kept = [(log, log.level, log.handlers[:], log.filters[:], log.propagate, log.disabled) for log in loggers]
    try:
        yield record
    finally:
        for logger, level, handlers, filters, propagate, disabled in kept:
            logger.setLevel(level)
            logger.handlers[:], logger.filters[:] = handlers, filters
            logger.propagate, logger.disabled = propagate, disabled
        for name in [name for name, value in changed.items() if os.environ.get(name) == value]:
            del os.environ[name]
            os.environ.update({name: before[name]} if name in before else {})
        if not had_fault_handler:
            faulthandler.disable()


@contextlib.contextmanager
def sigterm_kept() -> Iterator[None]:
    """Restore the system's handler of SIGTERM: Ray's library prints a stack trace before Python's handler runs.

    Only the main thread can do so by `signal`.
    """
    library, kept = ctypes.CDLL(None), ctypes.create_string_buffer(SIGACTION_BYTES)
    library.sigaction(signal.SIGTERM, None, kept)
    try:
        yield
    finally:
        library.sigaction(signal.SIGTERM, kept, None)


class Background:
    """A context held by another thread; the caller may continue while it is being entered.

    Ray is started and ended this way. Exceptions of signal handlers, which run in the main thread, cannot leave it half
    started, and Ray does not replace the handler of SIGTERM. The thread stays in the context until the end, because the
    operating system ends Ray's servers with the thread that started them. It is no pool of one thread, which forgets
    its thread where a signal interrupts `submit`.

    Args:
        make: returns the context; called in that thread.
    """

    def __init__(self, make: Callable[[], AbstractContextManager[object]]) -> None:
        self._make = make
        self._entered: Future[None] = Future()
        self._left = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._hold, name="raysp-background")

    @property
    def has_begun(self) -> bool:
        """Whether entering the context has started."""
        return self._thread.ident is not None

    def begin(self) -> None:
        """Start entering the context; has no effect if already started."""
        if not self.has_begun:
            self._thread.start()

    def wait(self) -> None:
        """Wait until the context is entered, starting if necessary. A signal ends the wait.

        Raises:
            BaseException: the exception raised on entering.
        """
        self.begin()
        self._entered.result()

    def end(self) -> None:
        """Leave the context once it is entered, and wait for that; has no effect if never started."""
        self._left.set()
        if self.has_begun:
            self._ended.wait()  # a signal that ends `join` makes Python 3.11 take the thread for ended
            self._thread.join()

    def _hold(self) -> None:
        try:
            with self._make():
                self._entered.set_result(None)
                self._left.wait()
        except BaseException as error:
            if self._entered.done():
                logger.warning("a context entered by a background thread failed on exit", exc_info=True)
            else:
                self._entered.set_exception(error)
        finally:
            self._ended.set()


@contextlib.contextmanager
def in_background(make: Callable[[], AbstractContextManager[object]]) -> Iterator[None]:
    """Hold a context in another thread within the `with` block."""
    background = Background(make)
    try:
        background.wait()
        yield
    finally:
        background.end()
