"""State of the calling process that a run changes; each change is undone when the run ends, however it ends."""

import contextlib
import faulthandler
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping


class Environment:
    """Environment variables set by a run or by the start of its Ray.

    Args:
        settings: variables to set; one that is set already keeps its value.
    """

    def __init__(self, settings: Mapping[str, str]) -> None:
        self._before = dict(os.environ)
        self._changed: dict[str, str] = {}
        for name, value in settings.items():
            os.environ.setdefault(name, value)
        self.record()

    def record(self) -> None:
        """Record which variables differ by now."""
        self._changed = {name: value for name, value in os.environ.items() if self._before.get(name) != value}

    def restore(self) -> None:
        """Restore what was recorded; a variable that the caller has changed since keeps its value."""
        for name, value in self._changed.items():
            if os.environ.get(name) != value:
                continue
            if name in self._before:
                os.environ[name] = self._before[name]
            else:
                del os.environ[name]


@contextlib.contextmanager
def loggers_kept() -> Iterator[None]:
    """Restore level, handlers, filters and propagation of Ray's loggers."""
    names = {"ray", "ray.data", *(name for name in logging.root.manager.loggerDict if name.startswith("ray."))}
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
def quiet_datasets() -> Iterator[None]:
    """Keep Ray Data's log off the terminal; the errors in it are raised as well."""
    import ray.data  # sets its loggers up

    with loggers_kept():
        logging.getLogger(ray.data.__name__).setLevel(logging.CRITICAL)
        yield


@contextlib.contextmanager
def pickling_kept() -> Iterator[None]:
    """Unregister the modules that were registered inside to be pickled by value."""
    from ray import cloudpickle

    before = set(cloudpickle.list_registry_pickle_by_value())  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        for name in set(cloudpickle.list_registry_pickle_by_value()) - before:  # type: ignore[no-untyped-call]
            cloudpickle.unregister_pickle_by_value(sys.modules[name])  # type: ignore[no-untyped-call]


@contextlib.contextmanager
def sigterm_kept() -> Iterator[None]:
    """Restore the handler of SIGTERM where Ray has put its own in the place of the default one."""
    kept = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        is_rays = getattr(signal.getsignal(signal.SIGTERM), "__module__", "").startswith("ray.")
        if is_rays and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, kept)


@contextlib.contextmanager
def fault_handler_kept() -> Iterator[None]:
    """Disable the fault handler, which Ray enables, unless it was enabled before."""
    was_enabled = faulthandler.is_enabled()
    try:
        yield
    finally:
        if not was_enabled:
            faulthandler.disable()
