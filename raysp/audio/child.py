"""Decoder process of `isolation.Decoder`: reads requests from one pipe and writes answers to another, in order.

Run as `python -m raysp.audio.child REQUESTS ANSWERS RANGES MEMORY_BYTES` with three inherited pipes. The process exits
at the end of its standard input, hence with its parent, even while it decodes.
"""

import builtins
import io
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterable, Iterator

import numpy as np

from raysp import bounds
from raysp.audio.decoder_protocol import (
    ANSWER,
    AUDIO_ERROR,
    COUNTED_HEADER,
    DECODE,
    FAULTS,
    FLOAT32,
    HEADER_IS,
    INT16,
    LAST_FLOAT32,
    LAST_INT16,
    MEAN,
    NO_MEMORY,
    NUMBER,
    PROGRAM_ERROR,
    RANGE,
    RANGES,
    READY,
    REQUEST,
    TOO_LONG,
    UNREADABLE,
)
from raysp.audio.source import read_header
from raysp.audio.stream_decoding import decode_chunks
from raysp.audio.waveforms import AudioHeader, DecodeOptions, Excerpt, Recording, Samples, TooLong
from raysp.errors import AudioError

PROGRAM_ERRORS = (TypeError, AttributeError, NameError, ImportError, SyntaxError, AssertionError)
"""Exceptions of a program that is wrong or incomplete. No content of a recording is their cause."""


class UnreadableError(Exception):
    """A failure of the parent process to read the recording. The parent holds the cause."""


class Pipes:
    """The child's ends of the pipes."""

    def __init__(self, requests: int, answers: int, ranges: int) -> None:
        self.requests = io.BufferedReader(io.FileIO(requests), 256 * 1024)
        self.answers = answers
        self.ranges = io.FileIO(ranges)

    def answer(self, kind: bytes, payload: "bytes | memoryview" = b"") -> None:
        """Write a whole answer, in several writes if necessary."""
        parts = [memoryview(ANSWER.pack(kind, len(payload))), memoryview(payload)]
        while parts:
            written = os.writev(self.answers, parts)
            while parts and written >= len(parts[0]):
                written -= len(parts.pop(0))
            if parts:
                parts[0] = parts[0][written:]

    def range(self, place: int, num_bytes: int) -> bytes:
        """Request a range of the current recording from the parent process.

        Raises:
            UnreadableError: the range could not be read.
        """
        self.answer(RANGES, RANGE.pack(place, num_bytes))
        (found,) = NUMBER.unpack(self._exactly(NUMBER.size))
        if found < 0:
            raise UnreadableError
        return self._exactly(found)

    def _exactly(self, num_bytes: int) -> bytes:
        data = bytearray(num_bytes)
        view = memoryview(data)
        while view:
            view = view[self.ranges.readinto(view) or os._exit(0) :]  # the parent process is gone
        return bytes(data)


class RemoteFile:
    """A recording held by the parent process."""

    def __init__(self, pipes: Pipes, head: bytes, num_bytes: int) -> None:
        self.pipes = pipes
        self.head = head
        self.num_bytes = num_bytes
        self.place = 0

    def seek(self, offset: int, whence: int, /) -> int:
        """Move the position and return it."""
        self.place = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self.place, os.SEEK_END: self.num_bytes}[whence]
        return self.place

    def read(self, num_bytes: int, /) -> bytes:
        """Read at most `num_bytes`, from `head` or by a request to the parent."""
        data = self.head[self.place : self.place + num_bytes] or self.pipes.range(self.place, num_bytes)
        self.place += len(data)
        return data


def serve(pipes: Pipes) -> None:
    """Answer requests until the end of their pipe, or until memory runs out."""
    faults = _faults(os.environ.get(FAULTS, ""))
    pipes.answer(READY)
    while request := pipes.requests.read(REQUEST.size):
        kind, num_bytes, num_head, sample_rate, channel, max_seconds, offset, has_duration, duration, *flags = (
            REQUEST.unpack(request)
        )
        head = pipes.requests.read(num_head)
        audio: Recording = head if num_head == num_bytes else RemoteFile(pipes, head, num_bytes)
        try:
            if faults:
                _commit_fault(faults, audio)
            if kind != DECODE:
                pipes.answer(HEADER_IS, _header(read_header(audio, counted=kind == COUNTED_HEADER)))
                continue
            excerpt = Excerpt(audio, offset, duration if has_duration else None)
            options = DecodeOptions(sample_rate, "mean" if channel == MEAN else channel, max_seconds, *flags)
            _send(pipes, decode_chunks(excerpt, options))
        except AudioError as error:
            pipes.answer(AUDIO_ERROR, json.dumps([error.error_type, str(error)]).encode())
        except TooLong as error:
            pipes.answer(TOO_LONG, json.dumps([error.seconds, error.max_seconds]).encode())
        except UnreadableError:
            pipes.answer(UNREADABLE)
        except MemoryError:
            pipes.answer(NO_MEMORY)
            return  # a process that ran out of memory is not reused
        except PROGRAM_ERRORS:
            pipes.answer(PROGRAM_ERROR, traceback.format_exc().encode(errors="replace"))


def _send(pipes: Pipes, chunks: Iterator[Samples]) -> None:
    """Write the chunks of a recording, and all before an error that is raised."""
    last = next(chunks)  # one chunk is held back, since the kind of the last one ends the answer
    try:
        for chunk in chunks:
            pipes.answer(INT16 if last.dtype == np.int16 else FLOAT32, last.view(np.uint8).data)
            last = chunk
    except AudioError:
        pipes.answer(INT16 if last.dtype == np.int16 else FLOAT32, last.view(np.uint8).data)
        raise
    pipes.answer(LAST_INT16 if last.dtype == np.int16 else LAST_FLOAT32, last.view(np.uint8).data)


def _header(found: AudioHeader) -> bytes:
    return json.dumps([getattr(found, name) for name in AudioHeader.__slots__]).encode()


def _faults(text: str) -> dict[bytes, str]:
    return {marker.encode(): fault for marker, _, fault in (one.partition("=") for one in text.split(",")) if fault}


def _commit_fault(faults: dict[bytes, str], audio: Recording) -> None:
    head = audio.head if isinstance(audio, RemoteFile) else bytes(memoryview(audio)[:4096])  # type: ignore[arg-type]
    if isinstance(audio, RemoteFile) and not head:
        head = audio.pipes.range(0, min(4096, audio.num_bytes))
    for marker, fault in faults.items():
        if marker not in head:
            continue
        if fault == "sleep":
            time.sleep(3600)
        elif fault == "spin":
            while True:
                pass
        elif fault == "gigabyte":
            bytearray(1024 * 1024 * 1024)
        elif fault == "memory":
            hoard = []
            while True:
                hoard.append(bytearray(64 * 1024 * 1024))
        elif fault.endswith("Error"):
            raise getattr(builtins, fault)(f"{fault} in the decoder")
        else:
            os.kill(os.getpid(), signal.Signals[fault])


def _end_with_parent() -> None:
    # The parent's end of this pipe closes with it, however it ends.
    while os.read(0, 1):
        pass
    os._exit(0)


def main(arguments: Iterable[str]) -> None:
    """Serve requests until the parent process closes the pipe or ends."""
    requests, answers, ranges, memory_bytes = (int(argument) for argument in arguments)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is handled by the parent process
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # mpg123 writes a message for every irregular frame. Errors before this line still reach the parent.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    bounds.limit_memory(memory_bytes)
    serve(Pipes(requests, answers, ranges))


if __name__ == "__main__":
    main(sys.argv[1:])
