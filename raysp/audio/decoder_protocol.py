"""Protocol between `isolation.Decoder` and its child process: program, layouts and kinds of messages, faults.

The decoder imports this file instead of `child`, which imports the readers of all formats.
"""

import struct
from pathlib import Path

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


def has_memory_limit() -> bool:
    """Return whether the memory of a process can be limited here: Linux only, which has /proc."""
    return Path("/proc/self/statm").exists()
