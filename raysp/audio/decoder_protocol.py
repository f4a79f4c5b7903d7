"""Messages between `isolation.Decoder` and its child process, and attribution of the child's failures.

The decoder imports this file instead of `child`, which imports the readers of all formats. Messages have the same form
in both directions: a kind, fields in JSON, and bytes.
"""

import json
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass

from raysp.errors import AudioError, RunError
from raysp.words import ending

PROGRAM = "raysp.audio.child"
"""Module that the child process runs."""

FRAME = struct.Struct("<c I Q")
"""Kind, bytes of the fields, bytes of data."""
HEADER, COUNTED_HEADER, DECODE = b"H", b"C", b"D"
"""Requests. Fields: bytes of the recording, CPU seconds of each answer, offset, duration, key, the fields
of `DecodeOptions`. Data: the recording, or its first bytes."""
CANCEL = b"X"
"""End of the requests so far: the child skips them, also the rest of the current recording, and replies with the same
message."""
RANGE = b"R"
"""Request of the child for a range of the current recording (offset, number of bytes), and its reply."""
SAMPLES = (b"h", b"f")
"""Chunks of samples: the character of their numpy type."""
READY, END, HEADER_FIELDS, AUDIO_ERROR, TOO_LONG, NO_MEMORY, PROGRAM_ERROR = b"+", b".", b"F", b"A", b"T", b"M", b"P"

FAULTS = "RAYSP_DECODER_FAULTS"
"""Environment variable for fault injection in tests, such as
`marker=SIGSEGV,marker=sleep,marker=spin,marker=gigabyte,marker=memory,marker=TypeError`.
A fault occurs at a recording with its marker in the first bytes."""


def packed(kind: bytes, fields: object = None, data: "bytes | memoryview" = b"") -> list[memoryview]:
    """Return the parts of a message."""
    text = b"" if fields is None else json.dumps(fields).encode()
    start = memoryview(FRAME.pack(kind, len(text), len(data)) + text)
    return [start, memoryview(data)] if len(data) else [start]


def send(connection: socket.socket, parts: list[memoryview], on_timeout: Callable[[], None] | None = None) -> None:
    """Send all parts of messages, which are removed from the list."""
    while parts:
        try:
            num_sent = connection.sendmsg(parts)
        except BlockingIOError:
            assert on_timeout is not None
            on_timeout()
            continue
        while parts and num_sent >= len(parts[0]):
            num_sent -= len(parts.pop(0))
        if num_sent:
            parts[0] = parts[0][num_sent:]


# A recording is at fault if decoder processes crash on it by themselves, or exceed a limit of time, `TRIES` times. A
# process that is killed or stopped from outside is replaced.
TRIES = 2
"""Attempts at a recording that crashes or hangs its child."""
MAX_KILLS = 20
"""External kills during one recording after which the shard is left to a later run."""
MAX_PAUSE_SECONDS = 2.0
"""Maximum delay before a child that was killed from outside is replaced."""
TIMEOUT_SIGNAL = "SIGPROF"
"""Signal of the kernel's timer of CPU time (ITIMER_PROF)."""
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


@dataclass
class FailureCounts:
    """Counts of failed attempts at one recording."""

    own: int = 0
    killed: int = 0

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


def timeout(seconds: float, clock: str = "") -> DecoderFailure:
    """Return the failure of a child that returned nothing in this time."""
    message = f"the decoder returned nothing for {seconds:.0f} s{clock}, twice; the recording may make it hang"
    return DecoderFailure("decoder_timeout", message)


def failure_of(code: int, seconds: float) -> DecoderFailure:
    """Return the failure of a child with an exit code and a limit of CPU time.

    It is an `ExternalFailure` if its signal came from outside.
    """
    name = exit_name(code)
    if name == TIMEOUT_SIGNAL:
        return timeout(seconds, " of CPU time")
    if code < 0 and name not in OWN_SIGNALS:
        return ExternalFailure(f"was killed from outside by {name}")
    how = f"crashed with {name}" if code < 0 else f"exited with {name}"
    return DecoderFailure("decoder_crashed", f"the decoder {how} on this recording, twice")


def exit_name(code: int) -> str:
    """Return the name of the signal that ended a process, or its exit code, as text."""
    return ending(code).removeprefix("signal ") if code < 0 else ending(code)
