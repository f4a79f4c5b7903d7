"""A context that a thread of its own enters and leaves, so that its caller goes on while it is being entered.

So a local Ray starts while its run is planned. The thread stays in the context until its end: the operating system ends
the servers of Ray with the thread that started them.
"""

import logging
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager

logger = logging.getLogger(__name__)


class Beside:
    """Enter a context in another thread.

    Args:
        make: returns the context; called there.
    """

    def __init__(self, make: Callable[[], AbstractContextManager[object]]) -> None:
        self._make = make
        self._entered = threading.Event()
        self._left = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._hold, name="raysp-beside")

    @property
    def has_begun(self) -> bool:
        """Whether the context is entered or being entered, or was."""
        return self._thread.ident is not None

    def begin(self) -> None:
        """Begin to enter the context, unless that has begun."""
        if not self.has_begun:
            self._thread.start()

    def wait(self) -> None:
        """Return once the context is entered; begins if nothing has. A signal ends the wait.

        Raises:
            BaseException: what entering it raised.
        """
        self.begin()
        self._entered.wait()
        if self._error is not None:
            raise self._error

    def end(self) -> None:
        """Leave the context as soon as it is entered, and return then; does nothing if it was never begun."""
        self._left.set()
        if self.has_begun:
            self._thread.join()

    def _hold(self) -> None:
        try:
            with self._make():
                self._entered.set()
                self._left.wait()
        except BaseException as error:
            if self._entered.is_set():
                logger.warning("a context that a thread held was left with an error", exc_info=True)
            self._error = error
        finally:
            self._entered.set()
