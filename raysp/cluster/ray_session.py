"""Session folder and token of a local Ray, where those that Ray would choose cannot be used."""

import contextlib
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
