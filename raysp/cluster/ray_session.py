"""Session folder and token of a local Ray."""

import contextlib
import functools
import logging
import os
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from raysp.errors import RunError

logger = logging.getLogger(__name__)

MAX_SOCKET_BYTES = 103 if sys.platform == "darwin" else 107
"""Longest path of a socket that systems admit."""


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
    return {"RAY_AUTH_TOKEN": _process_token()}


@functools.cache
def _process_token() -> str:
    return secrets.token_hex(32)  # Ray reads a token once per process


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
