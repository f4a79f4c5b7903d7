"""State of the calling process that a run changes; each change is undone at the end of the run, also after an error."""

import contextlib
import faulthandler
import logging
import os
import signal
import threading
from collections.abc import Iterator, Mapping


class Environment:
    """Environment variables set by a run or by the start of its Ray.

    Args:
        settings: variables to set; variables that are already set keep their values.
    """

    def __init__(self, settings: Mapping[str, str]) -> None:
        self._before = dict(os.environ)
        self._changed: dict[str, str] = {}
        for name, value in settings.items():
            os.environ.setdefault(name, value)
        self.record()

    def record(self) -> None:
        """Record the variables that have changed."""
        self._changed = {name: value for name, value in os.environ.items() if self._before.get(name) != value}

    def restore(self) -> None:
        """Restore the recorded variables, except those that the caller has changed since."""
        for name, value in self._changed.items():
            if os.environ.get(name) != value:
                continue
            if name in self._before:
                os.environ[name] = self._before[name]
            else:
                del os.environ[name]


@contextlib.contextmanager
def loggers_kept() -> Iterator[None]:
    """Restore level, handlers, filters and propagation of Ray's loggers on exit."""
    names = {"ray", *(name for name in logging.root.manager.loggerDict if name.startswith("ray."))}
    loggers = [logging.getLogger(name) for name in names]
    kept = [(one, one.level, one.handlers[:], one.filters[:], one.propagate, one.disabled) for one in loggers]
    try:
        yield
    finally:
        for logger, level, handlers, filters, propagate, disabled in kept:
            logger.setLevel(level)
            logger.handlers[:], logger.filters[:] = handlers, filters
            logger.propagate, logger.disabled = propagate, disabled


@contextlib.contextmanager
def sigterm_kept() -> Iterator[None]:
    """Restore the handler of SIGTERM on exit if Ray has replaced it."""
    kept = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        is_rays = getattr(signal.getsignal(signal.SIGTERM), "__module__", "").startswith("ray.")
        if is_rays and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, kept)


@contextlib.contextmanager
def fault_handler_kept() -> Iterator[None]:
    """Disable the fault handler on exit, which Ray enables, unless it was enabled before."""
    was_enabled = faulthandler.is_enabled()
    try:
        yield
    finally:
        if not was_enabled:
            faulthandler.disable()
