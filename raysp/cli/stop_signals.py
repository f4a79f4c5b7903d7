"""Ctrl-C and SIGTERM: the first signal stops a run cleanly, the second one immediately."""

import contextlib
import os
import shlex
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import typer

from raysp.cli.arguments import AGAIN, INTERRUPTED, TERMINATED
from raysp.cli.console import WORDS, err, escape, is_json
from raysp.cluster.addresses import is_submitted
from raysp.labelling.engine.display import Display
from raysp.words import printable

SAME_SECONDS = 1.0
"""Signals within this time of the first one count as one: `timeout` signals a command and then its process group."""


class Stop:
    """A request to stop."""

    def __init__(self) -> None:
        self.number = 0
        """Number of the signal; 0: no signal yet."""

    def __call__(self) -> bool:
        """Return whether a stop was requested."""
        return bool(self.number)

    @property
    def exit_code(self) -> int:
        """Exit code of a command that stopped for it."""
        return TERMINATED if self.number == signal.SIGTERM else INTERRUPTED


@contextmanager
def stoppable_display(*, is_kept: bool = True) -> Iterator[Display]:
    """Stop a run cleanly at Ctrl-C or SIGTERM and print how to continue; a second signal exits immediately.

    If labels are not kept (`is_kept`), nothing can continue, and the hint says so.

    Yields the display of the run. Other libraries may swallow the exception of a signal handler, so `Display.check`
    raises it again.
    """
    resume = AGAIN if is_submitted() else shlex.join(["raysp", *WORDS.get()])
    kept = f"committed and staged labels are kept. To resume: {resume}" if is_kept else "no labels were kept"
    message = f"raysp: stopped; {kept}"
    stop = Stop()

    def check() -> None:
        if stop():
            raise KeyboardInterrupt if stop.number == signal.SIGINT else _Terminated

    with _stopped_by_signals(stop, f"{printable(message)}\n", at_the_first=check):
        try:
            with Display(err, is_quiet=is_json(), check=check) as display:
                yield display
        except (KeyboardInterrupt, _Terminated, Exception) as error:
            # Native code interrupted by a signal, such as a wait of Ray, may raise another error than the handler.
            if isinstance(error, Exception) and not stop():
                raise
            if not is_json():
                err.print(escape(message))
            raise typer.Exit(stop.exit_code) from None


def shown_on(display: Display) -> dict[str, Any]:
    """Return the arguments of a run that shows its plan and its progress on a display."""
    return {"on_plan": display.plan, "on_progress": display.progress, "progress": False}


@contextmanager
def stopping_after_a_step() -> Iterator[Stop]:
    """Yield a request to stop, made by Ctrl-C or SIGTERM; a second signal exits immediately."""
    stop = Stop()
    with _stopped_by_signals(stop, "raysp: stopped; committed steps are kept\n"):
        yield stop


@contextmanager
def interruptible_sleep() -> Iterator[Callable[[float], None]]:
    """Yield a sleep that Ctrl-C ends by KeyboardInterrupt; elsewhere the first Ctrl-C waits for the next sleep.

    Python ignores exceptions in finalisers, for example of connections, and so would lose the exception of a signal.
    """
    num_pressed, is_asleep = 0, False

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        nonlocal num_pressed
        num_pressed += 1
        if is_asleep or num_pressed > 1:
            raise KeyboardInterrupt

    def sleep(seconds: float) -> None:
        nonlocal is_asleep
        is_asleep = True
        try:
            if num_pressed:
                raise KeyboardInterrupt
            time.sleep(seconds)
        finally:
            is_asleep = False

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield sleep
    finally:
        signal.signal(signal.SIGINT, before)


_previous: dict[int, Any] = {}
"""Handlers of signals from before this module set its own."""


@contextmanager
def _stopped_by_signals(stop: Stop, message: str, at_the_first: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Handle Ctrl-C and SIGTERM within the `with` block, in this process alone."""

    def ask(number: int, _frame: FrameType | None) -> None:
        if not stop():
            stop.number = number
            at_the_first()

    previous: dict[int, Any] = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    _previous.update(previous)
    try:
        with _leaving_at_the_second("" if is_json() else message):
            yield
    finally:
        _previous.clear()
        for number, before in previous.items():
            # Another signal ends a process that stops, without a traceback from Python's shutdown.
            signal.signal(number, signal.SIG_DFL if stop() else before)


def _leave_to_the_parent() -> None:
    """Restore the handlers in a forked process, whose signals do not stop the run: pools end workers by SIGTERM."""
    if _previous:
        signal.set_wakeup_fd(-1)
        for number, before in _previous.items():
            signal.signal(number, before)


os.register_at_fork(after_in_child=_leave_to_the_parent)


@contextmanager
def _leaving_at_the_second(message: str) -> Iterator[None]:
    """Exit immediately, without cleanup, at a second Ctrl-C or SIGTERM, over `SAME_SECONDS` after the first one."""
    # A Python signal handler would wait until the main thread returns from native code, such as a Ray call that hangs.
    # Therefore a thread reads the signal numbers that the C-level handler writes to a pipe. It also cancels the alarm
    # of Ray's own handler of SIGTERM, which would abort a process that takes more than three seconds to end.
    reader, writer = os.pipe()
    os.set_blocking(writer, False)

    def listen() -> None:
        first: float | None = None
        while number := os.read(reader, 1):
            signal.alarm(0)
            if number[0] not in (signal.SIGINT, signal.SIGTERM):
                continue
            first = first or time.monotonic()
            if time.monotonic() - first > SAME_SECONDS:
                with contextlib.suppress(OSError):
                    os.write(2, message.encode(errors="replace"))
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
