"""A context that a separate thread enters and leaves.

Ray is started and ended this way. Exceptions of signal handlers, which run in the main thread, cannot leave it half
started, and Ray does not replace the handler of SIGTERM. The thread stays in the context until the end, because the
operating system ends Ray's servers with the thread that started them.
"""

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager

logger = logging.getLogger(__name__)


class Background:
    """A context held by another thread; the caller may continue while it is being entered.

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
