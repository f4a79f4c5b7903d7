"""Decoding in a separate process, so that a recording that crashes or hangs the decoder costs one row.

`Decoder` has the functions of `raysp.audio` that take `DecodeOptions`, with the same errors and three more error types:
`decoder_crashed`, `decoder_timeout` and `out_of_memory`. One child process serves all calls. Answers arrive in the
order of the requests, which identifies the recording at fault. After a crash or hang the recording is tried once more
in a new child, in case an earlier recording damaged the memory of the first. A child that is killed or stopped from
outside is replaced, and no recording is at fault. Hangs are measured in the child's own time (`process_clock`), so that
neither pauses nor a busy machine count.
"""

import contextlib
import fcntl
import functools
import json
import logging
import os
import select
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import numpy as np

from raysp import bounds
from raysp.audio import decoder_protocol as protocol
from raysp.audio.decoder_protocol import (
    AnswerTimeout,
    DecoderFailure,
    ExternalFailure,
    FailureCounts,
    exit_name,
    failure_of,
)
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
    require_recording,
)
from raysp.errors import AudioError, ProgramError, RunError

logger = logging.getLogger(__name__)

ANSWER_SECONDS = 60.0
"""Base timeout of an answer (a header, a chunk of samples), after which the decoder counts as hung."""
ANSWER_BYTES_PER_SECOND = 1_000_000
"""Adds to the timeout: bytes of the recording divided by this rate. Time spent in its storage does not count."""
MEMORY_BYTES = 512 * 1024 * 1024
"""Address space of the child beyond its initial use (RLIMIT_AS)."""
START_SECONDS = 120.0
WHOLE_BYTES = 1024 * 1024
"""Larger recordings are not sent but read in ranges, so that the child's memory does not depend on their size."""
HEAD_BYTES = 64 * 1024
AHEAD_BYTES, AHEAD_REQUESTS = 4 * 1024 * 1024, 256
"""Limits of the requests sent ahead, so that the child never waits for one."""
PIPE_BYTES = 1024 * 1024
BUFFER_BYTES = 64 * 1024
MOST_PARTS = 64

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
}
_LAST = (protocol.HEADER_IS, protocol.LAST_INT16, protocol.LAST_FLOAT32)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Request:
    """A request to the child."""

    recording: memoryview | SupportsRead
    num_bytes: int
    head: memoryview
    packed: bytes

    @property
    def seconds(self) -> float:
        """Timeout of each answer in seconds."""
        return ANSWER_SECONDS + self.num_bytes / ANSWER_BYTES_PER_SECOND

    def range(self, place: int, num_bytes: int) -> "bytes | memoryview":
        """Read a range of the recording."""
        if isinstance(self.recording, memoryview):
            return self.recording[place : place + num_bytes]
        self.recording.seek(place, os.SEEK_SET)
        return self.recording.read(num_bytes)


class Decoder:
    """Decoder in a child process, which is started by the first call and again after a crash.

    A context manager. Not thread-safe. A call that starts before the results of another are consumed ends that one.

    Args:
        on_wait: called about once per second while waiting for an answer. That time is bounded by the timeout.
    """

    def __init__(self, on_wait: Callable[[], None] = lambda: None) -> None:
        self.on_wait = on_wait
        self._child: _Child | None = None
        self._turn = 0
        self._is_idle = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the child. A later call starts a new one."""
        if self._child is not None:
            self._child.end()
            self._child = None

    def read_header(self, audio: Recording | None, *, counted: bool = False) -> AudioHeader:
        """Read the header of a recording; see `raysp.audio.read_header`."""
        (found,) = self.read_headers([audio], counted=counted)
        return _given(found)

    def read_headers(
        self, recordings: Iterable[Recording | None], *, counted: bool = False
    ) -> Iterator[AudioHeader | AudioError]:
        """Yield the header of each recording in order, or the error that prevented reading it."""
        kind = protocol.COUNTED_HEADER if counted else protocol.HEADER
        options = DecodeOptions(0, max_seconds=0.0)
        requests = (_request(kind, Excerpt(one), HEAD_BYTES, options) for one in recordings)
        for found in self._in_order(requests, lambda answers: AudioHeader(*json.loads(next(answers)[1]))):
            assert not isinstance(found, TooLong)  # raised by decoding only
            yield found

    def decode(self, excerpt: Excerpt, options: DecodeOptions) -> Samples:
        """Decode a recording; see `raysp.audio.decode`."""
        return join(self.decode_chunks(excerpt, options))

    def decode_all(
        self, excerpts: Iterable[Excerpt], options: DecodeOptions
    ) -> Iterator[Samples | AudioError | TooLong]:
        """Yield the samples of each recording in order, or the error that prevented decoding."""
        requests = (_decode_request(one, options) for one in excerpts)
        return self._in_order(requests, lambda answers: join(_chunks(answers)))

    def decode_chunks(self, excerpt: Excerpt, options: DecodeOptions) -> Iterator[Samples]:
        """Decode a recording in chunks; see `raysp.audio.decode_chunks`."""
        request = _given(_decode_request(excerpt, options))
        turn = self._begin()
        if self._child is not None:
            self._child.send(request)
        counts, num_given = FailureCounts(), 0
        while True:
            try:
                # Sends it to a new child only; a running one has it already.
                self._start([request])
                for number, chunk in enumerate(_chunks(self._answers(request, turn))):
                    if number >= num_given:  # earlier chunks were yielded before the crash
                        num_given += 1
                        yield chunk
                self._is_idle = True
                return
            except (AudioError, TooLong):
                self._is_idle = True
                raise
            except DecoderFailure as failure:
                self.close()
                if (found := counts.count(failure)) is not None:
                    self._is_idle = True
                    raise found from None

    def _in_order(
        self,
        requests: "Iterable[_Request | AudioError]",
        read: "Callable[[Iterator[tuple[bytes, bytearray]]], T]",
    ) -> "Iterator[T | AudioError | TooLong]":
        """Send requests ahead and yield their results in order."""
        turn = self._begin()
        waiting = iter(requests)
        ahead: deque[_Request | AudioError] = deque()
        num_bytes = 0
        while True:
            # The child decodes the next recordings while this process uses the last one.
            while len(ahead) < AHEAD_REQUESTS and (not ahead or num_bytes < AHEAD_BYTES):
                request = next(waiting, None)
                if request is None:
                    break
                ahead.append(request)
                if isinstance(request, _Request):
                    num_bytes += len(request.head)
                    if self._child is not None:
                        self._child.send(request)
            if not ahead:
                self._is_idle = True
                return
            yield self._outcome(ahead, read, turn)
            done = ahead.popleft()
            num_bytes -= len(done.head) if isinstance(done, _Request) else 0

    def _outcome(
        self,
        ahead: "deque[_Request | AudioError]",
        read: "Callable[[Iterator[tuple[bytes, bytearray]]], T]",
        turn: int,
    ) -> "T | AudioError | TooLong":
        request = ahead[0]
        if isinstance(request, AudioError):
            return request
        counts = FailureCounts()
        while True:
            try:
                # Requests that were sent ahead are lost with a child that crashed, and are sent to the next one.
                self._start(ahead)
                return read(self._answers(request, turn))
            except (AudioError, TooLong) as error:
                # The frames of a traceback would keep the recording in memory.
                return error.with_traceback(None)
            except DecoderFailure as failure:
                self.close()
                if (found := counts.count(failure)) is not None:
                    return found

    def _begin(self) -> int:
        # Answers to an unfinished call are still on their way, and would be taken for those of this one.
        if not self._is_idle:
            self.close()
        self._turn += 1
        self._is_idle = False
        return self._turn

    def _start(self, requests: "Iterable[_Request | AudioError]") -> None:
        """Start a child if none is running, and send it the unanswered requests."""
        if self._child is not None:
            return
        self._child = _Child(self.on_wait)
        for request in requests:
            if isinstance(request, _Request):
                self._child.send(request)

    def _answers(self, request: _Request, turn: int) -> Iterator[tuple[bytes, bytearray]]:
        """Yield all answers to a request.

        Raises:
            AudioError, TooLong: reported by the child.
            ProgramError: the child reported an exception of the program.
            DecoderFailure: the child ended or must be ended.
        """
        while True:
            if turn != self._turn:
                raise RuntimeError("another call of this Decoder began before the results of this one were read")
            assert self._child is not None  # its end raises `DecoderFailure`, after which a new one is started
            kind, payload = self._child.answer(request)
            if kind == protocol.AUDIO_ERROR:
                raise AudioError(*json.loads(payload))
            if kind == protocol.TOO_LONG:
                raise TooLong(*json.loads(payload))
            if kind == protocol.NO_MEMORY:
                limit = f"{MEMORY_BYTES // 1024**2} MB"
                raise DecoderFailure("out_of_memory", f"decoding needs more memory than the decoder's limit ({limit})")
            if kind == protocol.PROGRAM_ERROR:
                raise _program_error(payload.decode())
            yield kind, payload
            if kind in _LAST:
                return


@functools.cache
def _warn_without_limit() -> None:
    """Warn once per process where the memory of the child cannot be limited."""
    if not bounds.has_memory_limit():
        logger.warning(
            "the memory of the decoder is not limited on %s: a recording that decodes to gigabytes can fill this "
            "machine's; label untrusted data on Linux",
            sys.platform,
        )


class _Child:
    """The child process, and the parent's ends of its pipes.

    Args:
        on_wait: see `Decoder`.

    Raises:
        RunError: the child does not start.
        ExternalFailure: the child was killed from outside before it had started.
    """

    def __init__(self, on_wait: Callable[[], None]) -> None:
        self.on_wait = on_wait
        _warn_without_limit()
        requests, self._requests = _pipe()
        self._answers, answers = _pipe()
        ranges, self._ranges = _pipe()
        theirs = (requests, answers, ranges)
        package = str(Path(protocol.__file__).parents[2])
        environment = {name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ}
        path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", protocol.PROGRAM, *map(str, theirs), str(MEMORY_BYTES)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            pass_fds=theirs,
            env={**environment, **_SET_ENVIRONMENT, "PYTHONPATH": path},
        )
        for end in theirs:
            os.close(end)
        os.set_blocking(self._requests, False)
        os.set_blocking(self._answers, False)
        self._outgoing: deque[memoryview] = deque()
        self._num_written, self._num_answered = 0, 0
        self._buffer = memoryview(bytearray(BUFFER_BYTES))
        self._held = self._buffer[:0]  # read from the pipe, not yet consumed
        self._await_start()

    def _await_start(self) -> None:
        try:
            self._read(protocol.ANSWER.size, self._timeout(START_SECONDS))
        except ExternalFailure:
            self.end()
            raise
        except DecoderFailure:
            self._process.kill()
            _, said = self._process.communicate()
            reason = said.decode(errors="replace").strip().rpartition("\n")[2] or exit_name(self._process.returncode)
            self.end()
            raise RunError(f"the decoder process did not start: {reason}. Try `raysp doctor`") from None

    def _timeout(self, seconds: float) -> AnswerTimeout:
        return AnswerTimeout(self._process.pid, seconds, self.on_wait)

    def end(self) -> None:
        """End the process and close the pipes."""
        self._process.kill()
        for stream in (self._process.stdin, self._process.stderr):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        self._process.wait()
        for end in (self._requests, self._answers, self._ranges):
            os.close(end)

    def send(self, request: _Request) -> None:
        """Send a request as far as the pipe has room. The rest is sent while waiting for answers."""
        self._outgoing.append(memoryview(request.packed))
        self._outgoing.append(request.head)
        self._write()

    def _write(self) -> None:
        """Write as much as the pipe has room for. Every second part is the end of a request."""
        try:
            while self._outgoing:
                written = os.writev(self._requests, [*islice(self._outgoing, MOST_PARTS)])
                while self._outgoing and written >= len(self._outgoing[0]):
                    written -= len(self._outgoing.popleft())
                    self._num_written += 1
                if written:
                    self._outgoing[0] = self._outgoing[0][written:]
        except BlockingIOError:
            pass
        except BrokenPipeError:  # the child ended: reading the other pipe reports it
            self._outgoing.clear()

    def answer(self, request: _Request) -> tuple[bytes, bytearray]:
        """Wait for an answer, and serve the child's requests for ranges.

        Raises:
            DecoderFailure: the child ended, or sent no answer in time.
            Exception: the exception of reading the recording.
        """
        failure: Exception | None = None
        timeout = self._timeout(request.seconds)
        while True:
            timeout.begin()
            kind, num_bytes = protocol.ANSWER.unpack(self._read(protocol.ANSWER.size, timeout))
            payload = self._read(num_bytes, timeout)
            timeout.end()
            if kind == protocol.RANGES:
                failure = self._send_range(request, *protocol.RANGE.unpack(payload)) or failure
            elif kind == protocol.UNREADABLE and failure is not None:
                self._num_answered += 1
                raise failure
            else:
                self._num_answered += kind not in (protocol.INT16, protocol.FLOAT32)
                return kind, payload

    def _read(self, num_bytes: int, timeout: AnswerTimeout) -> bytearray:
        """Read exactly `num_bytes` of the answers, buffering bytes that arrive with them.

        Raises:
            DecoderFailure: the child ended or hangs.
        """
        data = bytearray(num_bytes)
        num_held = min(num_bytes, len(self._held))
        data[:num_held] = self._held[:num_held]
        self._held = self._held[num_held:]
        view = memoryview(data)[num_held:]
        while view:
            try:
                num_read = os.readv(self._answers, [view, self._buffer])
            except BlockingIOError:
                self._await_answer(timeout)
                continue
            if num_read == 0:
                raise failure_of(self._process.wait())
            self._held = self._buffer[: max(0, num_read - len(view))]
            view = view[num_read:]
        return data

    def _await_answer(self, timeout: AnswerTimeout) -> None:
        """Wait for input. The current request is sent whole first, later ones as far as the pipe has room."""
        while self._outgoing:
            self._write()
            if not self._outgoing or self._num_written >= 2 * (self._num_answered + 1):
                break
            if self._wait_for(select.POLLIN | select.POLLOUT, timeout):
                return
        while not self._wait_for(select.POLLIN, timeout):
            pass

    def _wait_for(self, events: int, timeout: AnswerTimeout) -> bool:
        """Wait one step for either pipe. Returns whether there is input."""
        poll = select.poll()
        poll.register(self._answers, select.POLLIN)
        if events & select.POLLOUT:
            poll.register(self._requests, select.POLLOUT)
        return any(end == self._answers for end, _ in timeout.wait(poll))

    def _send_range(self, request: _Request, place: int, num_bytes: int) -> Exception | None:
        """Send a range to the child. Returns the exception of reading it, if any."""
        found: bytes | memoryview = b""
        failure: Exception | None = None
        try:
            found = request.range(place, num_bytes)
        except Exception as error:
            failure = error
        view = memoryview(protocol.NUMBER.pack(-1 if failure else len(found)) + found)
        with contextlib.suppress(BrokenPipeError):
            while view:
                view = view[os.write(self._ranges, view) :]
        return failure


def _pipe() -> tuple[int, int]:
    """Create a pipe (read end, write end) of `PIPE_BYTES`, where the system allows it."""
    ends = os.pipe()
    with contextlib.suppress(OSError, AttributeError):  # macOS has no size of pipes
        fcntl.fcntl(ends[0], fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    return ends


def _given(outcome: "T | AudioError | TooLong") -> T:
    if isinstance(outcome, AudioError | TooLong):
        raise outcome
    return outcome


def _decode_request(excerpt: Excerpt, options: DecodeOptions) -> _Request | AudioError:
    return _request(protocol.DECODE, excerpt, WHOLE_BYTES, options)


def _request(kind: bytes, excerpt: Excerpt, most_head: int, options: DecodeOptions) -> _Request | AudioError:
    """Return a request. Only the first bytes are attached of a recording too large to be sent whole."""
    options = options.of(excerpt)
    try:
        given = require_recording(excerpt.audio)
    except AudioError as error:
        return error.with_traceback(None)
    if is_file(given):
        recording: memoryview | SupportsRead = given
        num_bytes = given.seek(0, os.SEEK_END)
        head = memoryview(b"")
    else:
        recording = memoryview(given).cast("B")
        num_bytes = len(recording)
        head = recording if num_bytes <= most_head else recording[:HEAD_BYTES]
    if num_bytes == 0:
        return AudioError("no_audio", "found 0 bytes; expected the bytes of a recording")
    packed = protocol.REQUEST.pack(
        kind,
        num_bytes,
        len(head),
        options.sample_rate,
        protocol.MEAN if options.channel == "mean" else options.channel,
        options.max_seconds,
        excerpt.offset,
        excerpt.duration is not None,
        excerpt.duration or 0.0,
        options.keep_prefix,
        options.same_channels,
    )
    return _Request(recording, num_bytes, head, packed)


def _program_error(trace: str) -> ProgramError:
    last = trace.strip().rpartition("\n")[2]
    return ProgramError(
        f"the decoder failed by an error of the program, not of a recording: {last}. Either a package does not fit "
        f"(try `raysp doctor`), or it is a bug in raysp. No row is counted as damaged; mend it and run again.\n{trace}"
    )


def _chunks(answers: Iterator[tuple[bytes, bytearray]]) -> Iterator[Samples]:
    for kind, payload in answers:
        is_int16 = kind in (protocol.INT16, protocol.LAST_INT16)
        yield np.frombuffer(payload, np.int16) if is_int16 else np.frombuffer(payload, np.float32)
