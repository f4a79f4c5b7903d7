"""Protocol between `isolation.Decoder` and its child process: messages, and attribution of the child's failures.

The decoder imports this file instead of `child`, which imports the readers of all formats.
"""

import select
import struct
import time
from collections.abc import Callable

from raysp.audio.process_clock import ProcessClock
from raysp.errors import AudioError, RunError
from raysp.words import ending

PROGRAM = "raysp.audio.child"
"""Module that the child process runs."""

REQUEST = struct.Struct("<c q q q q d d ? d ? ?")
"""Kind, bytes of the recording, bytes that follow the request, sample rate, channel (`MEAN`: all), maximum seconds,
offset, whether a duration is given, duration, whether to keep the prefix of a damaged recording, whether joined streams
must have the same channels."""
ANSWER = struct.Struct("<c q")
"""Kind, bytes that follow."""
RANGE = struct.Struct("<q q")
"""Offset in the recording, number of bytes. The reply is a number of bytes (-1: not readable) and the bytes."""
NUMBER = struct.Struct("<q")

MEAN = -(2**63)
HEADER, COUNTED_HEADER, DECODE = b"h", b"c", b"d"
READY, RANGES, HEADER_IS = b"+", b"r", b"H"
INT16, FLOAT32, LAST_INT16, LAST_FLOAT32 = b"i", b"f", b"I", b"F"
AUDIO_ERROR, TOO_LONG, NO_MEMORY, UNREADABLE, PROGRAM_ERROR = b"A", b"T", b"M", b"U", b"P"

FAULTS = "RAYSP_DECODER_FAULTS"
"""Environment variable for fault injection in tests, such as
`marker=SIGSEGV,marker=sleep,marker=spin,marker=gigabyte,marker=memory,marker=TypeError`.
A fault occurs at a recording with its marker in the first bytes."""


# A recording is at fault if decoder processes crash on it by themselves, or exceed their own time, `TRIES` times. A
# process that is killed or stopped from outside is replaced.
STEP_SECONDS = 1.0
"""Interval between checks of a child that does not answer."""
TRIES = 2
"""Attempts at a recording that crashes or hangs its child."""
MAX_KILLS = 20
"""External kills during one recording after which the shard is left to a later run."""
MAX_PAUSE_SECONDS = 2.0
"""Maximum delay before a child that was killed from outside is replaced."""
OWN_SIGNALS = frozenset({"SIGSEGV", "SIGABRT", "SIGBUS", "SIGFPE", "SIGILL", "SIGSYS", "SIGTRAP", "SIGXCPU", "SIGXFSZ"})
"""Signals that a process causes itself. All others are external: a machine out of memory, or a person."""


class DecoderFailure(Exception):  # noqa: N818 - may not become an error
    """A failure of the child that requires a new one."""

    def __init__(self, error_type: str, message: str) -> None:
        super().__init__(message)
        self.error_type = error_type


class ExternalFailure(DecoderFailure):
    """An external kill or stop of the child. No recording is at fault."""

    def __init__(self, message: str) -> None:
        super().__init__("", message)


class FailureCounts:
    """Counts of failed attempts at one recording."""

    def __init__(self) -> None:
        self.own = 0
        self.killed = 0

    def count(self, failure: DecoderFailure) -> AudioError | None:
        """Count a failure of a child. Returns the recording's error if it is at fault, None to try again.

        Raises:
            RunError: `MAX_KILLS` children were killed from outside.
        """
        if isinstance(failure, ExternalFailure):
            self.killed += 1
            if self.killed >= MAX_KILLS:
                raise RunError(
                    f"the decoder process {failure}, {self.killed} times on one recording; either the machine has no "
                    "memory left (see the kernel's log) or another process ends it. Run again"
                )
            time.sleep(min(MAX_PAUSE_SECONDS, 0.01 * 2**self.killed))
            return None
        self.own += 1
        return AudioError(failure.error_type, str(failure)) if self.own >= TRIES else None


class AnswerTimeout:
    """Timeout for an answer, in the child's own time.

    Args:
        pid: process id of the child.
        seconds: time after which the child counts as hung.
        on_wait: called at each check of the child.
    """

    def __init__(self, pid: int, seconds: float, on_wait: Callable[[], None]) -> None:
        self.pid = pid
        self.seconds = seconds
        self.on_wait = on_wait
        self.step = min(STEP_SECONDS, seconds / 8)
        self._clock: ProcessClock | None = None
        self._waited = 0.0  # since the last check
        self._since = time.monotonic()

    def begin(self) -> None:
        """Start counting."""
        self._since = time.monotonic()

    def end(self) -> None:
        """Stop counting.

        Raises:
            DecoderFailure: the child hangs.
            ExternalFailure: the child has been stopped from outside for `seconds`.
        """
        self._waited += time.monotonic() - self._since
        if self._waited < self.step:
            return
        if self._clock is None:  # created at the first check, since most answers arrive earlier
            self._clock = ProcessClock(self.pid, self.step)
        else:
            self._clock.advance(self._waited)
        self._waited = 0.0
        self.on_wait()
        if self._clock.seconds >= self.seconds:
            raise DecoderFailure(
                "decoder_timeout",
                f"the decoder returned nothing for {self.seconds:.0f} s of its own time, twice; the recording may "
                "make it hang",
            )
        if self._clock.stopped_seconds >= self.seconds:
            raise ExternalFailure(f"was stopped from outside for {self.seconds:.0f} s")

    def wait(self, poll: "select.poll") -> list[tuple[int, int]]:
        """Wait for one step, or until a pipe can be read or written."""
        found = poll.poll(self.step * 1000)
        self.end()
        self.begin()
        return found


def failure_of(code: int) -> DecoderFailure:
    """Return the failure of a child with an exit code: an `ExternalFailure` if its signal came from outside."""
    name = exit_name(code)
    if code < 0 and name not in OWN_SIGNALS:
        return ExternalFailure(f"was killed from outside by {name}")
    how = f"crashed with {name}" if code < 0 else f"exited with {name}"
    return DecoderFailure("decoder_crashed", f"the decoder {how} on this recording, twice")


def exit_name(code: int) -> str:
    """Return the name of the signal that ended a process, or its exit code, as text."""
    found = ending(code)
    return found.removeprefix("signal ") if "SIG" in found else found
