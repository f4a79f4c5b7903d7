"""State of the calling process that a run changes; each change is undone at the end of the run, also after an error."""

import contextlib
import ctypes
import faulthandler
import logging
import os
import signal
from collections.abc import Iterator, Mapping

SIGACTION_BYTES = 1024
"""At least the size of `struct sigaction`."""


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
def process_kept(settings: Mapping[str, str]) -> Iterator[Environment]:
    """Set environment variables, and undo on exit what Ray changes in this process: variables, loggers, fault handler.

    Args:
        settings: as of `Environment`, which is yielded.
    """
    environment = Environment(settings)
    had_fault_handler = faulthandler.is_enabled()
    try:
        with loggers_kept():
            yield environment
    finally:
        environment.restore()
        if not had_fault_handler:
            faulthandler.disable()


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
    """Restore what the system calls on SIGTERM, for which Ray's library prints a stack trace before Python's handler.

    Only the main thread can do so by `signal`.
    """
    library, kept = ctypes.CDLL(None), ctypes.create_string_buffer(SIGACTION_BYTES)
    library.sigaction(signal.SIGTERM, None, kept)
    try:
        yield
    finally:
        library.sigaction(signal.SIGTERM, kept, None)
