"""Errors of a user's code: the last line in their files, and tracebacks as text, which cross processes."""

import functools
import logging
import os
import signal
import sys
import sysconfig
import threading
import traceback
from bdb import BdbQuit
from collections.abc import Mapping
from pathlib import Path
from types import CodeType, FrameType

logger = logging.getLogger(__name__)

MOST_PENDING = 3
"""Tracebacks that a process holds until its next message."""
MOST_CHARACTERS = 20_000
"""Characters of a traceback that are kept, from its end."""
_RAYSP = str(Path(__file__).resolve().parent)
_STANDARD = tuple(str(Path(sysconfig.get_path(name)).resolve()) for name in ("stdlib", "platstdlib"))
_INSTALLED = {str(Path(sysconfig.get_path(name)).resolve()) for name in ("purelib", "platlib")}
_pending: dict[str, str] = {}
_lock = threading.Lock()


def place(error: BaseException, owner: str = "") -> str | None:
    """Return the last line of a user's files in a traceback, such as "rules/levels.py:7"; None if there is none.

    Paths are relative to the folder from which modules are imported, so they are equal on all machines.

    Args:
        error: a caught error.
        owner: module of the function that was called, whose package counts as the user's where it is installed too.
    """
    if isinstance(error, SyntaxError) and error.filename is not None and _is_users(error.filename):
        return f"{Path(error.filename).name}:{error.lineno}"
    frames = [(frame, line) for frame, line in traceback.walk_tb(error.__traceback__) if _is_of_user(frame, owner)]
    if not frames:
        return None
    frame, line = frames[-1]
    return f"{_file_name(frame.f_code, str(frame.f_globals.get('__name__')))}:{line}"


def at(function: object) -> str:
    """Return where a user's function begins, such as " (rules/levels.py:7)"; the empty text for any other callable."""
    code = getattr(function, "__code__", None)
    if not isinstance(code, CodeType) or not _is_users(code.co_filename):
        return ""
    return f" ({_file_name(code, str(getattr(function, '__module__', '')))}:{code.co_firstlineno})"


def described(error: BaseException, owner: str = "") -> str:
    """Return "place: type: message" of an error, without the place if `place` returns None for these arguments."""
    where = place(error, owner)
    return f"{where}: {named(error)}" if where else named(error)


def named(error: BaseException) -> str:
    """Return the type and the message of an error, or the type alone."""
    message = message_of(error)
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def message_of(error: BaseException) -> str:
    """Return the message of an error; the empty text if the error fails to give one."""
    try:
        return str(error)
    except BaseException as failed:  # by `__str__` of a user's class
        raise_if_stopped(failed)
        return ""


def is_of_users_code(error: BaseException) -> bool:
    """Return whether a user's code, or a library that it called, raised an error; not raysp."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    last = next((frame for frame in reversed(frames) if _is_of_user(frame) or _is_of_raysp(frame)), None)
    return last is not None and _is_of_user(last)


def raise_if_stopped(error: BaseException) -> None:
    """Raise errors that end the process and are no fault of the interrupted code.

    Raises:
        KeyboardInterrupt: the error is one, or it or one of its causes is `BdbQuit`: the user has left the debugger.
        BdbQuit: in a worker of Ray, that has no terminal (`refuse_debuggers`).
        BaseException: the handler of a signal raised the error, which is no `Exception`: so workers of Ray end.
    """
    if isinstance(error, KeyboardInterrupt) or (not isinstance(error, Exception) and _is_of_a_signal(error)):
        raise error
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, BdbQuit):
            raise cause if sys.breakpointhook is _without_terminal else KeyboardInterrupt
        cause = cause.__cause__


def refuse_debuggers() -> None:
    """Let debuggers fail in this process, a worker of Ray, unless RAY_DEBUG asks for Ray's own, which waits for one."""
    if "RAY_DEBUG" not in os.environ:
        sys.breakpointhook = _without_terminal


def _without_terminal(*_: object, **__: object) -> None:
    raise BdbQuit


def note(error: BaseException) -> None:
    """Keep the traceback of an error for the next message of this process; one per place and type."""
    key = f"{place(error)} {type(error).__name__}"
    if key not in _pending:
        keep({key: "".join(traceback.format_exception(error))[-MOST_CHARACTERS:]})


def keep(texts: Mapping[str, str]) -> None:
    """Keep tracebacks of another process, by place and type, for the next message of this process."""
    with _lock:
        for key, text in texts.items():
            if len(_pending) < MOST_PENDING:
                _pending.setdefault(key, text)


def take() -> dict[str, str]:
    """Return and remove the kept tracebacks, by place and type."""
    with _lock:
        texts = dict(_pending)
        _pending.clear()
    return texts


def report(shown: set[str]) -> None:
    """Log and remove the kept tracebacks, at the level DEBUG; each place and type once.

    Args:
        shown: places and types that were logged before; new ones are added.
    """
    for key, text in take().items():
        if key not in shown:
            shown.add(key)
            logger.debug("%s", text.rstrip())


def is_installed_path(path: Path) -> bool:
    """Return whether a file is in a folder of installed packages."""
    return any(
        parent.name in ("site-packages", "dist-packages") or str(parent) in _INSTALLED
        for parent in path.resolve().parents
    )


def _is_of_user(frame: FrameType, owner: str = "") -> bool:
    module = str(frame.f_globals.get("__name__"))
    if module.partition(".")[0] == owner.partition(".")[0] != "raysp":
        return True
    if not Path(frame.f_code.co_filename).is_absolute():  # typed at a prompt, generated, or compiled by Cython
        return module == "__main__"
    return _is_users(frame.f_code.co_filename)


def _is_of_a_signal(error: BaseException) -> bool:
    handlers = [signal.getsignal(number) for number in signal.valid_signals()]
    codes = {getattr(handler, "__code__", None) for handler in handlers}
    return any(frame.f_code in codes for frame, _ in traceback.walk_tb(error.__traceback__))


def _is_of_raysp(frame: FrameType) -> bool:
    return _is_below_raysp(frame.f_code.co_filename)


@functools.cache
def _is_users(file_name: str) -> bool:
    path = Path(file_name).resolve()
    is_standard = any(str(path).startswith(f"{folder}/") for folder in _STANDARD)
    return not (_is_below_raysp(file_name) or is_installed_path(path) or is_standard)


@functools.cache
def _is_below_raysp(file_name: str) -> bool:
    return str(Path(file_name).resolve()).startswith(f"{_RAYSP}/")


def _file_name(code: CodeType, module: str) -> str:
    """Return the path of a file, relative to the folder from which its module was imported."""
    path = Path(code.co_filename)
    parts = (path.parent if path.stem == "__init__" else path.with_suffix("")).parts
    names = tuple(module.split("."))
    if parts[-len(names) :] != names:
        return path.name
    return "/".join(path.parts[-len(names) - (path.stem == "__init__") :])
