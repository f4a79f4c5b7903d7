"""Who is to blame when the process that decodes ends or gives no answer: the recording, or something outside.

A recording is at fault when fresh processes die of their own signal over it, or use up their own time. A process that
is killed or stopped from outside is replaced.
"""

import select
import signal
import time
from collections.abc import Callable

from raysp.audio.process_clock import ProcessClock
from raysp.errors import AudioError, RunError

STEP_SECONDS = 1.0
"""Between two looks at a child that does not answer."""
TRIES = 2
"""Of a recording that ends its child or hangs it."""
MAX_KILLS = 20
"""From outside over one recording, after which the shard is left for another run."""
MAX_PAUSE_SECONDS = 2.0
"""Before a child that was killed from outside is replaced."""
OWN_SIGNALS = frozenset({"SIGSEGV", "SIGABRT", "SIGBUS", "SIGFPE", "SIGILL", "SIGSYS", "SIGTRAP", "SIGXCPU", "SIGXFSZ"})
"""That a process brings upon itself; any other comes from outside: the memory of the machine, a person."""


class Death(Exception):  # noqa: N818
    """The child is of no more use."""

    def __init__(self, error_type: str, message: str) -> None:
        super().__init__(message)
        self.error_type = error_type


class Interference(Death):
    """The child was killed or stopped from outside: no recording is at fault."""

    def __init__(self, message: str) -> None:
        super().__init__("", message)


class Tries:
    """How often a recording was tried."""

    def __init__(self) -> None:
        self.own = 0
        self.killed = 0

    def blame(self, death: Death) -> AudioError | None:
        """Count a child's end; returns the recording's error where it is at fault, else it is to be tried again.

        Raises:
            RunError: children keep being killed from outside.
        """
        if isinstance(death, Interference):
            self.killed += 1
            if self.killed >= MAX_KILLS:
                raise RunError(
                    f"the process that decodes {death}, {self.killed} times over one recording; it ends so when the "
                    "machine has no memory left (see the kernel's log) or when somebody ends it. Run again"
                )
            time.sleep(min(MAX_PAUSE_SECONDS, 0.01 * 2**self.killed))
            return None
        self.own += 1
        return AudioError(death.error_type, str(death)) if self.own >= TRIES else None


class Patience:
    """How long an answer may take by the child's own time.

    Args:
        pid: the child.
        seconds: after which it hangs.
        on_wait: called with each look at it.
    """

    def __init__(self, pid: int, seconds: float, on_wait: Callable[[], None]) -> None:
        self.pid = pid
        self.seconds = seconds
        self.on_wait = on_wait
        self.step = min(STEP_SECONDS, seconds / 8)
        self._clock: ProcessClock | None = None
        self._waited = 0.0  # since the last look
        self._since = time.monotonic()

    def begin(self) -> None:
        """Begin to count."""
        self._since = time.monotonic()

    def end(self) -> None:
        """Stop counting.

        Raises:
            Death: the child hangs, or has been stopped for as long as a hang takes.
        """
        self._waited += time.monotonic() - self._since
        if self._waited < self.step:
            return
        if self._clock is None:  # with the first look, since most answers are there before it is due
            self._clock = ProcessClock(self.pid, self.step)
        else:
            self._clock.advance(self._waited)
        self._waited = 0.0
        self.on_wait()
        if self._clock.seconds >= self.seconds:
            raise Death(
                "decoder_timeout",
                f"the decoder gave nothing for {self.seconds:.0f} s of its own time, twice; it may hang on it",
            )
        if self._clock.stopped_seconds >= self.seconds:
            raise Interference(f"was stopped from outside for {self.seconds:.0f} s")

    def wait(self, poll: select.poll) -> list[tuple[int, int]]:
        """Wait for one step, or until something can be read or written."""
        found = poll.poll(self.step * 1000)
        self.end()
        self.begin()
        return found


def end_of(code: int) -> Death:
    """Return who is to blame for a child that ended with such a code."""
    name = ending(code)
    if code < 0 and name not in OWN_SIGNALS:
        return Interference(f"was ended from outside by {name}")
    how = f"died of {name}" if code < 0 else f"ended with {name}"
    return Death("decoder_crashed", f"the decoder {how} on it, twice")


def ending(code: int) -> str:
    """Return the name of the signal or the exit code of a process."""
    try:
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"
    except ValueError:  # one of the real-time signals
        return f"signal {-code}"
