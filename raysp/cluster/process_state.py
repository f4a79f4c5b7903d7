"""State of the calling process that a run changes; each change is undone at the end of the run, also after an error."""

import contextlib
import ctypes
import faulthandler
import logging
import os
import signal
from collections.abc import Callable, Iterator, Mapping

SIGACTION_BYTES = 1024
"""At least the size of `struct sigaction`."""


@contextlib.contextmanager
def process_kept(settings: Mapping[str, str]) -> Iterator[Callable[[], None]]:
    """Set environment variables, and undo on exit what Ray changes in this process: variables, loggers, fault handler.

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
    kept = [(one, one.level, one.handlers[:], one.filters[:], one.propagate, one.disabled) for one in loggers]
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
    """Restore what the system calls on SIGTERM, for which Ray's library prints a stack trace before Python's handler.

    Only the main thread can do so by `signal`.
    """
    library, kept = ctypes.CDLL(None), ctypes.create_string_buffer(SIGACTION_BYTES)
    library.sigaction(signal.SIGTERM, None, kept)
    try:
        yield
    finally:
        library.sigaction(signal.SIGTERM, kept, None)
