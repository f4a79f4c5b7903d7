"""Decoding in a separate process, so that a recording that crashes or hangs the decoder costs one row.

`Decoder` has the functions of `raysp.audio` that take `DecodeOptions`, with the same errors and three more error types:
`decoder_crashed`, `decoder_timeout` and `out_of_memory`. One child process serves all calls, and the `Decoder` after
it. It is sent a list of recordings, and answers in their order, which identifies the recording at fault. After a crash
or hang the recording is tried once more in a new child, in case an earlier recording damaged the memory of the first.
A child that is killed or stopped from outside is replaced, and no recording is at fault. The kernel limits the child's
memory and CPU time, so that neither pauses nor a busy machine count. A child that sleeps is given more time.
"""

import atexit
import contextlib
import functools
import itertools
import json
import logging
import os
import socket
import struct
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import numpy as np

from raysp import bounds
from raysp.audio import decoder_protocol as protocol
from raysp.audio.decoder_protocol import DecoderFailure, ExternalFailure, FailureCounts, exit_name, failure_of, timeout
from raysp.audio.waveforms import (
    AudioHeader,
    DecodeOptions,
    Excerpt,
    Recording,
    Samples,
    SupportsRead,
    TooLong,
    is_file,
    join,
)
from raysp.errors import AudioError, ProgramError, RunError

logger = logging.getLogger(__name__)

ANSWER_SECONDS = 60.0
"""CPU time of the child for an answer (a header, a chunk of samples), after which the kernel ends it."""
ANSWER_BYTES_PER_SECOND = 1_000_000
"""Adds to that time: bytes of the recording divided by this rate. Time spent in its storage does not count."""
WALL_FACTOR = 5
"""Multiple of that time after which a child that neither computes nor answers is ended."""
MEMORY_BYTES = 512 * 1024 * 1024
"""Address space of the child beyond its initial use (RLIMIT_AS)."""
START_SECONDS = 120.0
CANCEL_SECONDS = 10.0
"""Time after which a child that does not drop its requests is ended."""
STEP_SECONDS = 0.5
"""Interval between looks at a child that does not answer. A pause of this process counts as one."""
WHOLE_BYTES = 1024 * 1024
"""Larger recordings are not sent but read in ranges, so that the child's memory does not depend on their size."""
HEAD_BYTES = 64 * 1024
AHEAD_BYTES, AHEAD_REQUESTS = 4 * 1024 * 1024, 256
"""Limits of the recordings that are sent ahead, so that the child never waits for one."""
BATCH_BYTES, BATCH_REQUESTS = 512 * 1024, 32
"""Recordings that are sent together: as many until one of these is reached."""
SOCKET_BYTES = 1024 * 1024
MOST_IDLE = 4
"""Children kept for the next `Decoder`."""

_KEPT_ENVIRONMENT = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TZ",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "VIRTUAL_ENV",
    protocol.FAULTS,
)
_SET_ENVIRONMENT = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    # glibc keeps freed memory: to return it after each recording costs up to a third of the time of WAV (decision 004).
    "MALLOC_MMAP_THRESHOLD_": str(4 * 1024**2),
    "MALLOC_TRIM_THRESHOLD_": str(16 * 1024**2),
    "MALLOC_ARENA_MAX": "1",  # the thread's own would take 64 MB of the limit
}
STEP = struct.pack("ll", 0, int(STEP_SECONDS * 1e6))  # a timeval
Answer = Samples | AudioHeader | AudioError | TooLong


@dataclass(frozen=True, slots=True)
class _Request:
    """A request to the child."""

    recording: memoryview | SupportsRead
    seconds: float
    """CPU time of the child for each answer."""
    num_bytes: int
    """Bytes of the recording that are sent with it."""
    message: list[memoryview]

    def range(self, place: int, num_bytes: int) -> "bytes | memoryview":
        """Read a range of the recording."""
        if isinstance(self.recording, memoryview):
            return self.recording[place : place + num_bytes]
        self.recording.seek(place, os.SEEK_SET)
        return self.recording.read(num_bytes)


class Decoder:
    """Decoder in a child process, which is started by the first call and again after a crash.

    A context manager. Not thread-safe. A call that starts before the results of another are consumed cancels that one.

    Args:
        on_wait: called repeatedly while waiting for an answer. That time is bounded.
    """

    def __init__(self, on_wait: Callable[[], None] = lambda: None) -> None:
        self.on_wait = on_wait
        self._child: _Child | None = None
        self._ahead: deque[_Request] = deque()
        """Requests of the current call that the child has not answered."""
        self._is_paused = False
        """Whether the caller has the last answer: no message is half sent or received."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the child, or keep it for the next decoder if it is idle. A later call starts a new one."""
        child, self._child = self._child, None
        if child is not None and not self._ahead and len(_idle) < MOST_IDLE:
            _idle.append(child)
        elif child is not None:
            child.end()

    def cancel(self) -> None:
        """Drop the results of the current call that were not consumed; the child is kept for the next one."""
        if self._ahead and self._child is not None and self._is_paused:
            with contextlib.suppress(DecoderFailure):
                self._child.cancel()
                self._ahead = deque()
        if self._ahead:
            self.close()
            self._ahead = deque()

    def read_header(self, audio: Recording | None, *, counted: bool = False) -> AudioHeader:
        """Read the header of a recording; see `raysp.audio.read_header`."""
        [header] = self.read_headers([audio], counted=counted)
        if isinstance(header, AudioError):
            raise header
        return header

    def read_headers(
        self, recordings: Iterable[Recording | None], *, counted: bool = False
    ) -> Iterator[AudioHeader | AudioError]:
        """Yield the header of each recording in order, or the error that prevented reading it."""
        kind = protocol.COUNTED_HEADER if counted else protocol.HEADER
        options = DecodeOptions(0, max_seconds=0.0)
        requests = (_request(kind, Excerpt(audio), options, HEAD_BYTES) for audio in recordings)
        return cast("Iterator[AudioHeader | AudioError]", self._answers(requests))

    def decode(self, excerpt: Excerpt, options: DecodeOptions) -> Samples:
        """Decode a recording; see `raysp.audio.decode`."""
        return join(self.decode_chunks(excerpt, options))

    def decode_all(
        self, excerpts: Iterable[Excerpt], options: DecodeOptions
    ) -> Iterator[Samples | AudioError | TooLong]:
        """Yield the samples of each recording in order, or the error that prevented decoding."""
        answers = self._answers(_request(protocol.DECODE, excerpt, options, WHOLE_BYTES) for excerpt in excerpts)
        for first in answers:
            try:
                yield join(_chunks(first, answers))
            except (AudioError, TooLong) as error:
                # The frames of a traceback would keep the recording in memory.
                yield error.with_traceback(None)

    def decode_chunks(self, excerpt: Excerpt, options: DecodeOptions) -> Iterator[Samples]:
        """Decode a recording in chunks; see `raysp.audio.decode_chunks`."""
        answers = self._answers([_request(protocol.DECODE, excerpt, options, WHOLE_BYTES)])
        return _chunks(next(answers), answers)

    def _answers(self, requests: Iterable[_Request]) -> Iterator[Answer | None]:
        """Yield the answers to each request in order: a header, an error, or chunks of samples and None."""
        self.cancel()  # answers to an unfinished call are on their way
        self._ahead = ahead = deque[_Request]()
        self._is_paused = False
        waiting = iter(requests)
        num_bytes = 0
        while True:
            # The child decodes the next recordings while this process uses the last one.
            while num_bytes < AHEAD_BYTES and len(ahead) < AHEAD_REQUESTS and (batch := _batch(waiting)):
                num_bytes += sum(request.num_bytes for request in batch)
                ahead.extend(batch)
                if self._child is not None:
                    self._child.send(batch)
            if not ahead:
                return
            num_bytes -= ahead[0].num_bytes
            for answer in self._answers_to_first(ahead):
                self._is_paused = True
                yield answer
                if self._ahead is not ahead:
                    raise RuntimeError("another call of this Decoder began before the results of this one were read")
                self._is_paused = False

    def _answers_to_first(self, ahead: deque[_Request]) -> Iterator[Answer | None]:
        """Yield the answers to the first request, and remove it before the last one."""
        request, failures, num_yielded = ahead[0], FailureCounts(), 0
        while ahead and ahead[0] is request:
            try:
                if self._child is None:
                    self._child = _start(self.on_wait)
                    self._child.send(ahead)  # also those that were lost with a child that crashed
                for number in itertools.count(1):
                    answer = self._child.answer(request)
                    is_last = not isinstance(answer, np.ndarray)
                    if is_last:
                        ahead.popleft()
                    if number > num_yielded:  # earlier chunks were yielded before the crash
                        num_yielded = number
                        yield answer
                    if is_last:
                        return
            except DecoderFailure as failure:
                self.close()
                if (error := failures.count(failure)) is not None:
                    ahead.popleft()
                    yield error


class _Child:
    """The child process, and this process's end of their socket; raises RunError if the child does not start."""

    def __init__(self, on_wait: Callable[[], None]) -> None:
        self.on_wait = on_wait
        self.setting = _setting()
        memory_bytes, user_path, environment = self.setting
        _warn_without_limit()
        package = str(Path(protocol.__file__).parents[2])
        path = os.pathsep.join(filter(None, [package, user_path]))
        self._socket, theirs = socket.socketpair()
        with theirs:
            for end, size in itertools.product((self._socket, theirs), (socket.SO_SNDBUF, socket.SO_RCVBUF)):
                end.setsockopt(socket.SOL_SOCKET, size, SOCKET_BYTES)
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", protocol.PROGRAM, str(memory_bytes)],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env={**environment, **_SET_ENVIRONMENT, "PYTHONPATH": path},
            )
        for limit in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            self._socket.setsockopt(socket.SOL_SOCKET, limit, STEP)
        self._waited = 0.0
        self._seconds = START_SECONDS / WALL_FACTOR
        try:
            self._message()
        except DecoderFailure as failure:
            output = self.end()
            if isinstance(failure, ExternalFailure):
                raise
            reason = output.decode(errors="replace").strip().rpartition("\n")[2] or exit_name(self._process.returncode)
            raise RunError(f"the decoder process did not start: {reason}. Try `raysp doctor`") from None

    def is_alive(self) -> bool:
        """Return whether the process runs, and was started as this process would start it now."""
        return self.setting == _setting() and self._process.poll() is None

    def end(self) -> bytes:
        """End the process, and return its standard error."""
        self._socket.close()
        self._process.kill()
        output: bytes = self._process.communicate()[1]
        return output

    def send(self, requests: Iterable[_Request]) -> None:
        """Send requests. Receiving the next answer raises the failure of a child that does not take them."""
        self._waited = 0.0
        with contextlib.suppress(ConnectionError, DecoderFailure):
            protocol.send(self._socket, [part for request in requests for part in request.message], self._wait)

    def cancel(self) -> None:
        """Wait until the child has dropped all requests; it reads an end of file in place of further ranges."""
        self._seconds = CANCEL_SECONDS / WALL_FACTOR
        self._reply(protocol.packed(protocol.CANCEL))
        while (kind := self._message()[0]) != protocol.CANCEL:
            if kind == protocol.RANGE:
                self._reply(protocol.packed(protocol.RANGE))

    def _reply(self, parts: list[memoryview]) -> None:
        with contextlib.suppress(ConnectionError):
            protocol.send(self._socket, parts, self._wait)

    def answer(self, request: _Request) -> Answer | None:
        """Receive an answer, and serve the child's requests for ranges. Returns None at the end of a recording."""
        self._seconds = request.seconds
        while True:
            kind, fields, data = self._message()
            if kind == protocol.RANGE:
                self._reply(protocol.packed(protocol.RANGE, data=request.range(*json.loads(fields))))
            elif kind in protocol.SAMPLES:
                return np.frombuffer(data, kind.decode())
            else:
                return _last_answer(kind, json.loads(fields or b"null"))

    def _message(self) -> tuple[bytes, bytearray, bytearray]:
        self._waited = 0.0
        kind, num_fields, num_bytes = protocol.FRAME.unpack(self._exactly(protocol.FRAME.size))
        return kind, self._exactly(num_fields), self._exactly(num_bytes)

    def _exactly(self, num_bytes: int) -> bytearray:
        data = bytearray(num_bytes)
        view = memoryview(data)
        while view:
            try:
                num_read = self._socket.recv_into(view, 0, socket.MSG_WAITALL)
            except BlockingIOError:
                self._wait()
                continue
            except ConnectionError:
                num_read = 0
            if num_read == 0:
                raise failure_of(self._process.wait(), self._seconds)
            view = view[num_read:]
        return data

    def _wait(self) -> None:
        """Count a step of waiting; raise DecoderFailure if the child hangs or is stopped from outside."""
        self.on_wait()
        self._waited += STEP_SECONDS
        if self._waited < WALL_FACTOR * self._seconds:
            return
        pid, status = os.waitpid(self._process.pid, os.WNOHANG | os.WUNTRACED)
        if pid and os.WIFSTOPPED(status):
            raise ExternalFailure(f"was stopped from outside for {self._waited:.0f} s")
        if pid:  # it ended at this moment
            self._process.returncode = os.waitstatus_to_exitcode(status)
        raise timeout(self._waited)


_idle: list[_Child] = []
"""Children of decoders that were closed."""


def _start(on_wait: Callable[[], None]) -> _Child:
    """Return an idle child, or a new one."""
    with contextlib.suppress(IndexError):
        while True:
            child = _idle.pop()
            if child.is_alive():
                child.on_wait = on_wait
                return child
            child.end()
    return _Child(on_wait)


@atexit.register
def end_idle() -> None:
    """End the children that are kept for the next decoder."""
    with contextlib.suppress(IndexError):
        while True:
            _idle.pop().end()


os.register_at_fork(after_in_child=_idle.clear)  # the parent owns these children


def _setting() -> tuple[int, str | None, dict[str, str]]:
    """Return the settings with which a child is started."""
    kept = {name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ}
    return MEMORY_BYTES, os.environ.get("PYTHONPATH"), kept


@functools.cache
def _warn_without_limit() -> None:
    """Warn once per process where the memory of the child cannot be limited."""
    if not bounds.has_memory_limit():
        logger.warning(
            "the memory of the decoder is not limited on %s: a recording that decodes to gigabytes can fill this "
            "machine's; label untrusted data on Linux",
            sys.platform,
        )


def _request(kind: bytes, excerpt: Excerpt, options: DecodeOptions, most_head: int) -> _Request:
    """Return a request. Of a recording larger than `most_head` only the first bytes are attached, of a file none."""
    options = options.of(excerpt)
    recording: memoryview | SupportsRead = memoryview(b"")
    num_bytes, head = None, memoryview(b"")
    if excerpt.audio is not None and is_file(excerpt.audio):
        recording = excerpt.audio
        num_bytes = recording.seek(0, os.SEEK_END)
    elif excerpt.audio is not None:
        recording = memoryview(excerpt.audio).cast("B")
        num_bytes = len(recording)
        head = recording if num_bytes <= most_head else recording[:HEAD_BYTES]
    seconds = ANSWER_SECONDS + (num_bytes or 0) / ANSWER_BYTES_PER_SECOND
    values = [getattr(options, name) for name in DecodeOptions.__slots__]
    fields = [num_bytes, seconds, excerpt.offset, excerpt.duration, excerpt.key, *values]
    return _Request(recording, seconds, len(head), protocol.packed(kind, fields, head))


def _batch(requests: Iterator[_Request]) -> list[_Request]:
    """Return the next requests, which are sent together."""
    batch, num_bytes = list[_Request](), 0
    for request in requests:
        batch.append(request)
        num_bytes += request.num_bytes
        if num_bytes >= BATCH_BYTES or len(batch) >= BATCH_REQUESTS:
            break
    return batch


def _last_answer(kind: bytes, fields: Any) -> AudioHeader | AudioError | TooLong | None:  # noqa: ANN401 - JSON
    """Return an answer that ends those to a request, or raise its exception (see `_Child.answer`)."""
    if kind == protocol.AUDIO_ERROR:
        return AudioError(*fields)
    if kind == protocol.TOO_LONG:
        return TooLong(*fields)
    if kind == protocol.HEADER_FIELDS:
        return AudioHeader(*fields)
    if kind == protocol.NO_MEMORY:
        limit = f"{MEMORY_BYTES // 1024**2} MB"
        raise DecoderFailure("out_of_memory", f"decoding needs more memory than the decoder's limit ({limit})")
    if kind == protocol.PROGRAM_ERROR:
        last = fields.strip().rpartition("\n")[2]
        raise ProgramError(
            f"the decoder failed by an error of the program, not of a recording: {last}. Either a package does not fit "
            f"(try `raysp doctor`), or it is a bug in raysp. No row is counted as damaged; mend it and run again.\n"
            f"{fields}"
        )
    return None


def _chunks(answer: Answer | None, answers: Iterator[Answer | None]) -> Iterator[Samples]:
    """Yield the chunks of a recording, and raise the error that ends them."""
    while answer is not None:
        if isinstance(answer, AudioError | TooLong):
            raise answer
        yield cast("Samples", answer)
        answer = next(answers)
