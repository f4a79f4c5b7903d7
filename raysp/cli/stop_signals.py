"""Ctrl-C and SIGTERM: the first signal stops a run cleanly, the second one immediately."""

import contextlib
import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import typer

from raysp.cli.arguments import INTERRUPTED, TERMINATED
from raysp.cli.console import err, escape
from raysp.cluster.addresses import is_submitted
from raysp.words import printable


@contextmanager
def resume_hint(quiet: bool, *, is_kept: bool = True) -> Iterator[Callable[[], None]]:
    """Stop a run cleanly at Ctrl-C or SIGTERM and print how to continue; a second signal exits immediately.

    If labels are not kept (`is_kept`), nothing can continue, and the hint says so.

    Yields a function to call periodically: other libraries may swallow the exception of a signal handler, so this
    function raises it again.
    """
    resume = "submit it again" if is_submitted() else shlex.join(["raysp", *sys.argv[1:]])
    kept = f"committed and staged labels are kept. To resume: {resume}" if is_kept else "no labels were kept"
    said = f"raysp: stopped; {kept}"
    asked: list[int] = []

    def stop_run(number: int, _frame: FrameType | None) -> None:
        asked.append(number)
        if len(asked) == 1:
            check()

    def check() -> None:
        if asked:
            raise KeyboardInterrupt if asked[0] == signal.SIGINT else _Terminated

    with _handled_by(stop_run):
        try:
            with _leaving_at_the_second("" if quiet else f"{printable(said)}\n"):
                yield check
        except (KeyboardInterrupt, _Terminated, Exception) as stop:
            # Native code interrupted by a signal, such as a wait of Ray, may raise another error than the handler.
            if isinstance(stop, Exception) and not asked:
                raise
            is_interrupt = isinstance(stop, KeyboardInterrupt) or asked[:1] == [signal.SIGINT]
            if not quiet:
                err.print(escape(said))
            raise typer.Exit(INTERRUPTED if is_interrupt else TERMINATED) from None


_previous: dict[int, Any] = {}
"""Handlers of signals from before this module set its own."""


@contextmanager
def _handled_by(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Handle Ctrl-C and SIGTERM within the `with` block, in this process alone."""
    previous: dict[int, Any] = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    _previous.update(previous)
    try:
        yield
    finally:
        _previous.clear()
        for number, before in previous.items():
            signal.signal(number, before)


def _leave_to_the_parent() -> None:
    """Restore the handlers in a forked process, whose signals are not those of the run: pools end theirs by SIGTERM."""
    if _previous:
        signal.set_wakeup_fd(-1)
        for number, before in _previous.items():
            signal.signal(number, before)


os.register_at_fork(after_in_child=_leave_to_the_parent)


class Stop:
    """A request to stop."""

    def __init__(self) -> None:
        self.number = 0
        """Number of the signal; 0: there was none."""

    def __call__(self) -> bool:
        """Return whether a stop was requested."""
        return bool(self.number)

    @property
    def exit_code(self) -> int:
        """Exit code of a command that stopped for it."""
        return INTERRUPTED if self.number == signal.SIGINT else TERMINATED


@contextmanager
def stopping_after_a_step(quiet: bool) -> Iterator[Stop]:
    """Yield a request to stop, made by Ctrl-C or SIGTERM; a second signal exits immediately."""
    stop = Stop()

    def ask(number: int, _frame: FrameType | None) -> None:
        stop.number = stop.number or number

    said = "" if quiet else "raysp: stopped; committed steps are kept\n"
    with _handled_by(ask), _leaving_at_the_second(said):
        yield stop


@contextmanager
def _leaving_at_the_second(said: str) -> Iterator[None]:
    """Exit immediately, without cleanup, at a second Ctrl-C or SIGTERM.

    A Python signal handler would wait until the main thread returns from native code, such as a Ray call that hangs.
    Therefore a thread reads the signal numbers that the C-level handler writes to a pipe. It also cancels the alarm of
    Ray's own handler of SIGTERM, which would abort a process that takes more than three seconds to end.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)

    def listen() -> None:
        arrived = 0
        while number := os.read(reader, 1):
            signal.alarm(0)
            arrived += number[0] in (signal.SIGINT, signal.SIGTERM)
            if arrived > 1:
                with contextlib.suppress(OSError):
                    os.write(2, said.encode(errors="replace"))
                os._exit(INTERRUPTED if number[0] == signal.SIGINT else TERMINATED)
        os.close(reader)

    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=listen, name="raysp-signals", daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(writer)


class _Terminated(BaseException):
    """Stop requested by SIGTERM."""
