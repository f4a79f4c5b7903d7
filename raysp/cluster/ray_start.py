"""Ray's start in this process: quiet, patient and without servers that no run uses, where Ray has no setting for it.

Sessions have a folder and a token of their own where those that Ray would choose cannot be used.
"""

import contextlib
import logging
import os
import re
import secrets
import shutil
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType, ModuleType
from typing import IO, Any

from raysp.errors import RunError

logger = logging.getLogger(__name__)

START_SECONDS = 180
"""Timeout of the start of each part of a local Ray: on a busy machine it takes minutes."""
_RAYS_LINE = re.compile(rb"\[[^]]*\] \w+\.cc:\d+: ")
"""Beginning of a log line that Ray's libraries write to stderr."""


@contextlib.contextmanager
def quiet_raylet() -> Iterator[None]:
    """Send the raylet's messages about dead workers to the log. Ray prints them on stdout and has no setting for it.

    The run reports crashes of workers itself.
    """
    from ray._private import worker

    with replaced(worker, "print_to_stdstream", _log_lines):
        yield


@contextlib.contextmanager
def quiet_import() -> Iterator[None]:
    """Keep advice on packages for notebooks off the output while Ray is imported; nothing that is shown uses them."""
    advice = logging.getLogger("ray.widgets.util")
    level = advice.level
    advice.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "IProgress not found")  # of tqdm
            yield
    finally:
        advice.setLevel(level)


@contextlib.contextmanager
def on_loopback() -> Iterator[None]:
    """Keep the servers of a local Ray on 127.0.0.1, even if Ray was imported before its setting was made."""
    from ray._private import ray_constants

    with replaced(ray_constants, "ENABLE_RAY_CLUSTER", False):
        yield


@contextlib.contextmanager
def longer_start() -> Iterator[None]:
    """Wait longer than 30 seconds for a node to appear. Ray has no setting for it."""
    from ray._private import services

    asked: Callable[[str, str], object] = services.get_node

    def get_node(address: str, node_id: str) -> object:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                return asked(address, node_id)
            except RuntimeError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)

    with replaced(services, "get_node", get_node):
        yield


@contextlib.contextmanager
def servers_of_a_run() -> Iterator[None]:
    """Start only the servers of Ray that a run uses: no API server, log monitor or autoscaler, and small agents.

    `ray.init` can turn off the dashboard only. Each of these servers imports Ray, which takes half a second of a core
    that workers wait for.
    """
    from ray._private import utils
    from ray._private.node import Node

    def without_api_server(node: Node, **_: object) -> None:
        node._webui_url = None

    def without(_: Node) -> None:
        return

    with contextlib.ExitStack() as stack:
        stack.enter_context(replaced(Node, "start_api_server", without_api_server))
        stack.enter_context(replaced(Node, "start_log_monitor", without))
        stack.enter_context(replaced(Node, "start_monitor", without))
        # An agent without the dashboard's packages loads no modules; the search for these packages takes a second too.
        stack.enter_context(replaced(utils, "get_dashboard_dependency_error", lambda: ImportError("not used")))
        yield


@contextlib.contextmanager
def replaced(module: ModuleType | type, name: str, value: object) -> Iterator[None]:
    """Replace an attribute of a module or class of Ray, if this version of Ray has it."""
    if not hasattr(module, name):
        yield
        return
    kept = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, kept)


def _log_lines(data: Mapping[str, Any], ignore_prefix: bool = False) -> None:
    for line in data["lines"]:
        logger.info("%s: %s", data["pid"], line)


def reread_settings() -> None:
    """Make Ray read its environment variables again: it reads them on import, which may have been much earlier."""
    from ray._raylet import Config  # type: ignore[attr-defined]

    Config.initialize("")


@contextlib.contextmanager
def quiet_start() -> Iterator[None]:
    """Keep Ray's messages off the terminal, which no setting of Ray does. An error includes them.

    Lines that other threads write to stderr are printed after Ray has started.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            yield
        except Exception as error:
            error.add_note(_read(said).decode(errors="replace"))
            raise
        else:
            sys.stderr.flush()
            os.write(kept, b"".join(line for line in _read(said).splitlines(True) if not _RAYS_LINE.match(line)))
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)


def _read(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read()


@contextlib.contextmanager
def signals_held() -> Iterator[None]:
    """Defer Ctrl-C and SIGTERM until Ray is imported or has started; a second signal is passed on at once.

    An exception of a handler during Ray's start is swallowed by a callback, leaves a lock held, or aborts the process.
    During Ray's import it leaves a partial module, whose exit handler then fails. Ray would also replace the handler of
    SIGTERM by its own, which exits without a message.
    """
    own = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    handlers = {number: handler for number, handler in own.items() if callable(handler)}
    if threading.current_thread() is not threading.main_thread():
        handlers = {}
    arrived: list[int] = []

    def hold(number: int, frame: FrameType | None) -> None:
        arrived.append(number)
        if len(arrived) > 1:
            handlers[signal.Signals(number)](number, frame)

    try:
        for number in handlers:
            signal.signal(number, hold)
        with quiet_import():
            from ray._private import utils

        is_held = signal.SIGTERM in handlers
        with replaced(utils, "set_sigterm_handler", lambda _: None) if is_held else contextlib.nullcontext():
            yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if arrived:
            handlers[signal.Signals(arrived[0])](arrived[0], None)


MAX_SOCKET_BYTES = 103 if sys.platform == "darwin" else 107
"""Longest path of a socket that systems admit."""
TOKEN = "RAY_AUTH_TOKEN"


def default_folder() -> str:
    """Return the folder in which Ray creates the folders of its sessions."""
    return os.path.join(os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp", "ray")  # noqa: PTH118


@contextlib.contextmanager
def session_folder() -> Iterator[Mapping[str, str]]:
    """Yield options of `ray.init` for a short folder, removed at the end, if that of Ray is too long or not writable.

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
def session_token() -> Iterator[None]:
    """Set a token for the local Ray if there is none and Ray cannot write one to ~/.ray."""
    from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]

    loader = AuthenticationTokenLoader.instance()
    is_needed = os.environ.get("RAY_AUTH_MODE", "").lower() == "token" and not os.environ.get(TOKEN)
    home = Path(os.path.expanduser("~"))  # noqa: PTH111 - Path.home fails for users without an entry
    is_needed = is_needed and not loader.has_token(ignore_auth_mode=True)
    if not is_needed or (home.is_absolute() and _is_writable(home / ".ray")):
        yield
        return
    os.environ[TOKEN] = secrets.token_hex(32)
    loader.reset_cache()
    try:
        yield
    finally:
        os.environ.pop(TOKEN, None)
        loader.reset_cache()
