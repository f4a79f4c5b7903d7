"""An open recording: its checked header, and its frames in the order they come."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from os import SEEK_CUR, SEEK_END, SEEK_SET
from typing import TYPE_CHECKING, Protocol

import soundfile

from raysp.audio.container import CONTAINERS, HEAD_BYTES, Opening, describe, refusal, sniff, unsupported
from raysp.errors import AudioError
from raysp.words import count

if TYPE_CHECKING:
    from typing_extensions import TypeIs

# Files of 1 kHz and 1 MHz exist and are labelled. Far below there is no speech, and a byte at 1 Hz would become 64 KB;
# above, DSD128 runs at 5.6 MHz and no recorder is faster.
MIN_SAMPLE_RATE, MAX_SAMPLE_RATE = 100, 10_000_000
MAX_CHANNELS = 1024  # libsndfile's own bound
UNKNOWN_FRAMES = 2**62  # libsndfile says 2**63 - 1 for a FLAC stream without a total
FARTHEST_SEEK = 2**62

# Before libsndfile takes bare MPEG frames for an MP3 it looks for a Macintosh resource fork in the working directory
# (`._`, `.AppleDouble/`) and, where there is one, fails on it. After an ID3 tag it does not look.
RESOURCE_FORK_ERRORS = range(148, 155)
EMPTY_ID3 = b"ID3\x04\x00\x00" + (10).to_bytes(4, "big") + bytes(10)


FIRST_READ_BYTES, MOST_READ_BYTES = 64 * 1024, 1024 * 1024  # of a file: a header costs little, a stream few requests


class SupportsBuffer(Protocol):
    """Anything with the buffer protocol: bytes, bytearray, memoryview, numpy.ndarray, pyarrow.Buffer."""

    def __buffer__(self, flags: int, /) -> memoryview:
        """Lend the bytes."""
        ...


class SupportsRead(Protocol):
    """A seekable binary file: an open file, `io.BytesIO`, `pyarrow.NativeFile`."""

    def read(self, num_bytes: int, /) -> bytes:
        """Read at most `num_bytes`; fewer only at the end."""
        ...

    def seek(self, offset: int, whence: int, /) -> int:
        """Move; return the place."""
        ...


Recording = SupportsBuffer | SupportsRead
"""A recording's bytes, or a file that holds nothing else; the file's place is moved, and it is not closed."""


@dataclass(frozen=True, slots=True)
class Excerpt:
    """A recording, or the part of it that is wanted."""

    audio: Recording | None
    offset: float = 0.0
    """Seconds to leave out at the start."""
    duration: float | None = None
    """Seconds to take; None: to the end."""


@dataclass(frozen=True, slots=True)
class AudioHeader:
    """What a recording says of itself; only good for ordering rows, since a header may lie.

    `num_frames` is None where the header does not say (FLAC written to a pipe).
    """

    sample_rate: int
    channels: int
    num_frames: int | None
    container: str
    subtype: str
    num_bytes: int

    @property
    def seconds(self) -> float:
        """Seconds claimed; where nothing is claimed, those of 16-bit samples packed two to one."""
        num_frames = self.num_bytes / self.channels if self.num_frames is None else self.num_frames
        return num_frames / self.sample_rate


class Source(soundfile.SoundFile):  # type: ignore[misc]
    """A soundfile that is only read forwards.

    Where it may seek, soundfile seeks to where it already is after each read: an MP3 decoder then loses its state, Ogg
    searches its pages, and a FLAC whose end cannot be sought to is refused though every frame was read.
    """

    def seekable(self) -> bool:
        """Deny it, so that soundfile does not."""
        return False


class ByteReader:
    """A seekable file over a memoryview: no copy, and no exception in libsndfile's callbacks (cffi prints those)."""

    __slots__ = ("_position", "_view", "num_bytes")
    error = None

    def __init__(self, view: memoryview) -> None:
        self._view = view
        self._position = 0
        self.num_bytes = len(view)

    def head(self) -> bytes:
        """Return the first bytes."""
        return bytes(self._view[:HEAD_BYTES])

    def behind(self, prefix: bytes) -> "ByteReader":
        """Put bytes in front."""
        return ByteReader(memoryview(prefix + self._view))

    def seek(self, offset: int, whence: int = SEEK_SET) -> int:
        """Move; to a place that cannot be, stay, as a failed lseek does."""
        start = {SEEK_SET: 0, SEEK_CUR: self._position, SEEK_END: self.num_bytes}[whence]
        if 0 <= start + offset < FARTHEST_SEEK:
            self._position = start + offset
        return self._position

    def tell(self) -> int:
        """Return the place of the next byte."""
        return self._position

    def readinto(self, buffer: memoryview) -> int:
        """Copy the next bytes into `buffer`; return how many there were."""
        start = self._position
        part = self._view[start : start + len(buffer)]
        num_bytes = len(part)
        if num_bytes == len(buffer):  # nearly always; MPEG headers come four bytes at a time
            buffer[:] = part
        else:
            buffer[:num_bytes] = part
        self._position = start + num_bytes
        return num_bytes


class FileReader:
    """A seekable file over ranges of another, read ahead; what that one raises is kept in `error`, not raised."""

    __slots__ = ("_ahead", "_buffer", "_buffer_start", "_file", "_position", "_prefix", "error", "num_bytes")

    def __init__(self, file: SupportsRead) -> None:
        self._file = file
        self._prefix = b""
        self._buffer, self._buffer_start, self._position = b"", 0, 0
        self._ahead = FIRST_READ_BYTES
        self.error: Exception | None = None
        self.num_bytes = file.seek(0, SEEK_END)

    def head(self) -> bytes:
        """Return the first bytes.

        Raises:
            Exception: what the file raises.
        """
        first = bytearray(min(HEAD_BYTES, self.num_bytes))
        self.readinto(memoryview(first))
        self._position = 0
        if self.error:
            raise self.error
        return bytes(first)

    def behind(self, prefix: bytes) -> "FileReader":
        """Put bytes in front, from now on."""
        self._prefix = prefix
        self.num_bytes += len(prefix)
        self._buffer = b""
        return self

    def seek(self, offset: int, whence: int = SEEK_SET) -> int:
        """Move; to a place that cannot be, stay, as a failed lseek does."""
        start = {SEEK_SET: 0, SEEK_CUR: self._position, SEEK_END: self.num_bytes}[whence]
        if 0 <= start + offset < FARTHEST_SEEK:
            self._position = start + offset
        return self._position

    def tell(self) -> int:
        """Return the place of the next byte."""
        return self._position

    def readinto(self, buffer: memoryview) -> int:
        """Copy the next bytes into `buffer`; return how many there were."""
        done = 0
        while done < len(buffer) and (part := self._next(len(buffer) - done)):
            buffer[done : done + len(part)] = part
            done += len(part)
            self._position += len(part)
        return done

    def _next(self, most: int) -> bytes | memoryview:
        """Give some bytes from here on; none at the end, or once the file has failed."""
        place = self._position - self._buffer_start
        if not 0 <= place < len(self._buffer):
            if self.error or self._position >= self.num_bytes:
                return b""
            self._fill()
            place = 0
        return memoryview(self._buffer)[place : place + most]

    def _fill(self) -> None:
        is_next = self._buffer and self._position == self._buffer_start + len(self._buffer)
        self._ahead = min(2 * self._ahead, MOST_READ_BYTES) if is_next else FIRST_READ_BYTES
        self._buffer_start = self._position
        if self._position < len(self._prefix):
            self._buffer = self._prefix[self._position :]
            return
        try:
            self._file.seek(self._position - len(self._prefix), SEEK_SET)
            self._buffer = self._file.read(min(self._ahead, self.num_bytes - self._position))
        except Exception as error:
            self._buffer, self.error = b"", error


Reader = ByteReader | FileReader


def read_headers(recordings: Iterable[Recording | None]) -> Iterator[AudioHeader | AudioError]:
    """Read what recordings claim, in their order; an error stands in the place of what it prevented."""
    for audio in recordings:
        try:
            yield read_header(audio)
        except AudioError as error:
            yield error.with_traceback(None)


def read_header(audio: Recording | None) -> AudioHeader:
    """Read what a recording claims, without decoding it.

    Raises:
        AudioError: As `decode` does, for what is wrong before the first frame.
    """
    with open_source(audio) as (_, header):
        return header


@contextmanager
def open_source(audio: Recording | None) -> Iterator[tuple[Source, AudioHeader]]:
    """Open a recording by its content; whatever libsndfile then reports while it is open becomes `corrupt_audio`.

    Raises:
        AudioError: `no_audio`, `unsupported_format`, `corrupt_audio`, `invalid_audio` or `out_of_memory`.
        Exception: what a file raised while it was read; to libsndfile that looks like an end.
    """
    reader = _reader(audio)
    opening = Opening(reader.head(), reader.num_bytes)
    container = sniff(opening)
    if container is None:
        raise unsupported(opening, "no known audio format")
    try:
        source = _open(reader, opening, container)
        with source:
            yield source, _check_header(source, opening)
    except soundfile.LibsndfileError as error:
        if reader.error:
            raise reader.error from None
        message = f"{container}: libsndfile says {error.error_string!r} while decoding, {describe(opening)}"
        raise AudioError("corrupt_audio", f"{message}; expected a stream without errors") from None
    except AudioError:
        if reader.error:
            raise reader.error from None
        raise
    if reader.error:
        raise reader.error


def _reader(audio: Recording | None) -> Reader:
    """Make a reader of a recording, without a copy.

    Raises:
        AudioError: `no_audio` when there is none.
    """
    given = refuse_nothing(audio)
    reader = FileReader(given) if is_file(given) else ByteReader(memoryview(given).cast("B"))
    if reader.num_bytes == 0:
        raise AudioError("no_audio", "found 0 bytes; expected the bytes of a recording")
    return reader


def refuse_nothing(audio: Recording | None) -> Recording:
    """Give the recording.

    Raises:
        AudioError: `no_audio` when there is none.
    """
    if audio is None:
        raise AudioError("no_audio", "found null; expected the bytes of a recording")
    return audio


def is_file(audio: Recording) -> "TypeIs[SupportsRead]":
    """Tell a file from bytes (`io.BytesIO` and `mmap` are files)."""
    return hasattr(audio, "read")


def _open(reader: Reader, opening: Opening, container: str) -> Source:
    try:
        try:
            return _open_from_the_start(reader)
        except soundfile.LibsndfileError as error:
            if container != "MP3" or error.code not in RESOURCE_FORK_ERRORS:
                raise
        return _open_from_the_start(reader.behind(EMPTY_ID3))
    except soundfile.LibsndfileError as error:
        raise refusal(opening, container, error.code, error.error_string) from None


def _open_from_the_start(reader: Reader) -> Source:
    reader.seek(0)
    source = Source(reader)
    if source.format == "MP3":
        source.seek(0)  # as soundfile.read does: mpg123 then starts from the same state, bit for bit
    return source


def _check_header(source: Source, opening: Opening) -> AudioHeader:
    if source.format not in CONTAINERS:
        raise unsupported(opening, f"found {source.format}")
    if not MIN_SAMPLE_RATE <= source.samplerate <= MAX_SAMPLE_RATE:
        expected = f"expected {MIN_SAMPLE_RATE} to {MAX_SAMPLE_RATE}"
        raise AudioError("invalid_audio", f"{source.format}: sample rate {source.samplerate} Hz; {expected}")
    if not 1 <= source.channels <= MAX_CHANNELS:
        raise AudioError(
            "invalid_audio", f"{source.format}: {count(source.channels, 'channel')}; expected 1 to {MAX_CHANNELS}"
        )
    num_frames = source.frames if 0 <= source.frames < UNKNOWN_FRAMES else None
    return AudioHeader(source.samplerate, source.channels, num_frames, source.format, source.subtype, opening.num_bytes)
