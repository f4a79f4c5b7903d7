"""Decoding in this process, where no pipes can be given to another one (Windows).

The same requests are answered by the same program as in `isolation`, but a recording that crashes the decoder ends this
process, one on which it hangs is waited for, and memory has no limit.
"""

import functools
import io
import logging
from collections import deque
from collections.abc import Callable
from typing import Protocol

from raysp.audio import decoder_protocol as protocol
from raysp.audio.child import Pipes, UnreadableError, serve

logger = logging.getLogger(__name__)


class Request(Protocol):
    """A request, as `isolation` packs it."""

    @property
    def packed(self) -> bytes:
        """The packed fields."""

    @property
    def head(self) -> memoryview:
        """The first bytes of the recording."""

    def range(self, place: int, num_bytes: int, /) -> bytes | memoryview:
        """Read a range of the recording."""


class Here:
    """The answers of a decoder process, computed in this one."""

    def __init__(self) -> None:
        _warn()
        self._answers: deque[tuple[bytes, bytearray]] = deque()
        self._failure: Exception | None = None

    def send(self, request: Request) -> None:
        """Do nothing: `answer` gets the request too."""

    def answer(self, request: Request) -> tuple[bytes, bytearray]:
        """Return the next answer to a request.

        Raises:
            Exception: the exception of reading the recording.
        """
        if not self._answers:
            pipes = _Memory(request, self._answers.append)
            serve(pipes)
            self._answers.popleft()  # that the program is ready
            self._failure = pipes.failure
        kind, payload = self._answers.popleft()
        if kind == protocol.UNREADABLE and self._failure is not None:
            raise self._failure
        return kind, payload

    def end(self) -> None:
        """Drop answers that were not consumed."""
        self._answers.clear()


class _Memory(Pipes):
    """Pipes of the program with one request, whose answers go to a function."""

    def __init__(self, request: Request, answered: Callable[[tuple[bytes, bytearray]], None]) -> None:
        self.requests = io.BufferedReader(io.BytesIO(request.packed + bytes(request.head)))  # type: ignore[arg-type]
        self.failure: Exception | None = None
        self._request, self._answered = request, answered

    def answer(self, kind: bytes, payload: "bytes | memoryview" = b"") -> None:
        """Keep an answer."""
        self._answered((kind, bytearray(payload)))

    def range(self, place: int, num_bytes: int) -> bytes:
        """Read a range of the recording."""
        try:
            return bytes(self._request.range(place, num_bytes))
        except Exception as error:
            self.failure = error
            raise UnreadableError from None


@functools.cache
def _warn() -> None:
    logger.warning("recordings are decoded in this process, as this system has no other way: a damaged one can end it")
