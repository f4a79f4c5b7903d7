"""Decoder process of `isolation.Decoder`: reads requests from a socket and writes answers to it, in order.

Run as `python -m raysp.audio.child MEMORY_BYTES` with the socket as standard input. A thread reads the requests, so
that the parent process never waits to send one, and ends the process at their end, hence with its parent.
"""

import builtins
import json
import os
import signal
import socket
import sys
import threading
import time
import traceback
from queue import SimpleQueue
from typing import cast

import numpy as np

from raysp import bounds
from raysp.audio import decoder_protocol as protocol
from raysp.audio.decoder_protocol import FAULTS, FRAME
from raysp.audio.source import read_header
from raysp.audio.stream_decoding import LastStream, decode_chunks
from raysp.audio.waveforms import AudioHeader, DecodeOptions, Excerpt, Recording, TooLong
from raysp.errors import AudioError

PROGRAM_ERRORS = (TypeError, AttributeError, NameError, ImportError, SyntaxError, AssertionError)
"""Exceptions of a program that is wrong or incomplete. No content of a recording is their cause."""
BUFFER_BYTES = 256 * 1024


class Parent:
    """The connection to the parent process."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._ranges: SimpleQueue[bytes] = SimpleQueue()
        self.requests: SimpleQueue[tuple[bytes, bytes, bytes]] = SimpleQueue()
        self.seconds = 0.0
        """Limit of CPU time until the next answer."""
        self.is_cancelled = False
        """Whether the requests before the next `CANCEL` need no answers."""

    def receive(self) -> None:
        """Receive messages until the end of the connection, then end this process."""
        try:
            with self._socket.makefile("rb", BUFFER_BYTES) as stream:
                while len(frame := stream.read(FRAME.size)) == FRAME.size:
                    kind, num_fields, num_bytes = FRAME.unpack(frame)
                    fields, data = stream.read(num_fields), stream.read(num_bytes)
                    if kind == protocol.RANGE:
                        self._ranges.put(data)
                    else:
                        self.is_cancelled = self.is_cancelled or kind == protocol.CANCEL
                        self.requests.put((kind, fields, data))
        finally:
            os._exit(0)  # also at an error: a parent that ends before it has read all answers resets the connection

    def send(self, kind: bytes, fields: object = None, data: "bytes | memoryview" = b"") -> None:
        """Send a message, and restart the count of CPU time: its default action ends the process."""
        protocol.send(self._socket, protocol.packed(kind, fields, data))
        signal.setitimer(signal.ITIMER_PROF, self.seconds)

    def range(self, place: int, num_bytes: int) -> bytes:
        """Request a range of the current recording."""
        self.send(protocol.RANGE, [place, num_bytes])
        return self._ranges.get()


class RemoteFile:
    """A recording held by the parent process."""

    def __init__(self, parent: Parent, head: bytes, num_bytes: int) -> None:
        self.parent = parent
        self.head = head
        self.num_bytes = num_bytes
        self.place = 0

    def seek(self, offset: int, whence: int, /) -> int:
        """Move the position and return it."""
        self.place = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self.place, os.SEEK_END: self.num_bytes}[whence]
        return self.place

    def read(self, num_bytes: int, /) -> bytes:
        """Read at most `num_bytes`, from `head` or by a request to the parent."""
        data = self.head[self.place : self.place + num_bytes] or self.parent.range(self.place, num_bytes)
        self.place += len(data)
        return data


def serve(parent: Parent) -> None:
    """Answer requests until memory runs out."""
    faults = [fault.partition("=")[::2] for fault in os.environ.get(FAULTS, "").split(",")]
    parent.send(protocol.READY)
    last = LastStream()
    while True:
        kind, fields, data = parent.requests.get()
        if kind == protocol.CANCEL:
            parent.is_cancelled = False
            parent.send(kind)
            continue
        if parent.is_cancelled:
            continue
        num_bytes, parent.seconds, offset, duration, key, *options = json.loads(fields)
        signal.setitimer(signal.ITIMER_PROF, parent.seconds)
        audio: Recording | None = None if num_bytes is None else data
        if num_bytes and len(data) < num_bytes:
            audio = RemoteFile(parent, data, num_bytes)
        try:
            for mark, fault in faults:
                if fault and mark.encode() in head(audio):
                    commit_fault(fault)
            if kind == protocol.DECODE:
                excerpt = Excerpt(audio, offset, duration, key=key)
                for chunk in decode_chunks(excerpt, DecodeOptions(*options), last):
                    if parent.is_cancelled:
                        break
                    parent.send(chunk.dtype.char.encode(), data=chunk.view(np.uint8).data)
                parent.send(protocol.END)
            else:
                header = read_header(audio, counted=kind == protocol.COUNTED_HEADER)
                parent.send(protocol.HEADER_FIELDS, [getattr(header, name) for name in AudioHeader.__slots__])
        except AudioError as error:
            parent.send(protocol.AUDIO_ERROR, [error.error_type, str(error)])
        except TooLong as error:
            parent.send(protocol.TOO_LONG, [error.seconds, error.max_seconds])
        except MemoryError:
            parent.send(protocol.NO_MEMORY)
            return  # a process that ran out of memory is not reused
        except PROGRAM_ERRORS:
            parent.send(protocol.PROGRAM_ERROR, traceback.format_exc())


def head(audio: Recording | None) -> bytes:
    """Return the first bytes of a recording."""
    if isinstance(audio, RemoteFile):
        return audio.head or audio.parent.range(0, 4096)
    return b"" if audio is None else cast("bytes", audio)[:4096]


def commit_fault(fault: str) -> None:
    """Fail as a test wants it."""
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


def main(memory_bytes: int) -> None:
    """Serve requests until the parent process closes the socket or ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is handled by the parent process
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    # mpg123 writes a message for every irregular frame. Errors before this line still reach the parent.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    parent = Parent(socket.socket(fileno=0))
    threading.Thread(target=parent.receive, daemon=True).start()
    bounds.limit_memory(memory_bytes)
    serve(parent)


if __name__ == "__main__":
    main(int(sys.argv[1]))
