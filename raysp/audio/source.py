"""Open recordings: checked header, and frames in sequential order."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from os import SEEK_CUR, SEEK_END, SEEK_SET
from typing import TYPE_CHECKING

import soundfile

from raysp.audio.container import (
    CONTAINERS,
    HEAD_BYTES,
    MEDIA,
    Opening,
    describe,
    refusal,
    sniff,
    unknown,
    unsupported,
)
from raysp.audio.counting import counts_all
from raysp.audio.media import MediaSource, open_media
from raysp.audio.opus import OpusSource, open_opus
from raysp.audio.parsing.flac import AHEAD_BYTES, STEP_BYTES
from raysp.audio.streams import Stream, Streams
from raysp.audio.waveforms import AudioHeader, Recording, SupportsRead, is_file, require_recording
from raysp.errors import AudioError
from raysp.words import count

if TYPE_CHECKING:
    pass

# Files of 1 kHz and 1 MHz exist and are labelled. Far below there is no speech, and a byte at 1 Hz would become 64 KB.
# At the upper end, DSD128 has 5.6 MHz, the highest rate of any recorder.
MIN_SAMPLE_RATE, MAX_SAMPLE_RATE = 100, 10_000_000
MAX_CHANNELS = 1024  # libsndfile's own bound
UNKNOWN_FRAMES = 2**62  # libsndfile reports 2**63 - 1 for a FLAC stream without a total
FARTHEST_SEEK = 2**62

# Before libsndfile accepts bare MPEG frames as MP3, it searches the working directory for a Macintosh resource fork
# (`._`, `.AppleDouble/`) and fails if there is one. After an ID3 tag it does not search.
RESOURCE_FORK_ERRORS = range(148, 155)
EMPTY_ID3 = b"ID3\x04\x00\x00" + (10).to_bytes(4, "big") + bytes(10)


FIRST_READ_BYTES, MOST_READ_BYTES = 64 * 1024, 1024 * 1024  # reads of a file: small for a header, growing for a stream


class Source(soundfile.SoundFile):  # type: ignore[misc]
    """A sound file that is read sequentially.

    On a seekable file, soundfile seeks to the current position after each read. An MP3 decoder then loses its state,
    Ogg searches its pages, and a FLAC file whose end cannot be reached by a seek fails although every frame was read.
    """

    def seekable(self) -> bool:
        """Report non-seekable so that soundfile never seeks."""
        return False


class ByteReader:
    """A seekable file over a memoryview. No copies, and no exceptions in libsndfile's callbacks (cffi prints those)."""

    __slots__ = ("_position", "_view", "num_bytes", "steps_from")
    error = None

    def __init__(self, view: memoryview) -> None:
        self._view = view
        self._position = 0
        self.num_bytes = self.steps_from = len(view)
        """`steps_from`: place from which on few bytes are read at once."""

    def head(self) -> bytes:
        """Return the first bytes."""
        return bytes(self._view[:HEAD_BYTES])

    def part(self, start: int, end: int) -> "ByteReader":
        """Return a reader of the bytes between two places."""
        return ByteReader(self._view[start:end])

    def behind(self, prefix: bytes) -> "ByteReader":
        """Return a reader with bytes prepended."""
        return ByteReader(memoryview(prefix + self._view))

    def seek(self, offset: int, whence: int = SEEK_SET) -> int:
        """Move the position and return it. An invalid position leaves it unchanged, as a failed lseek does."""
        start = {SEEK_SET: 0, SEEK_CUR: self._position, SEEK_END: self.num_bytes}[whence]
        if 0 <= start + offset < FARTHEST_SEEK:
            self._position = start + offset
        return self._position

    def tell(self) -> int:
        """Return the position of the next byte."""
        return self._position

    def readinto(self, buffer: memoryview) -> int:
        """Copy the next bytes into `buffer`. Returns their number."""
        start = self._position
        if start + len(buffer) > self.steps_from:
            buffer = memoryview(buffer)[:STEP_BYTES]
        part = self._view[start : start + len(buffer)]
        num_bytes = len(part)
        if num_bytes == len(buffer):  # the usual case; MPEG headers are read four bytes at a time
            buffer[:] = part
        else:
            buffer[:num_bytes] = part
        self._position = start + num_bytes
        return num_bytes


class FileReader:
    """A seekable file over ranges of another, with read-ahead. Its exceptions are stored in `error`, not raised."""

    __slots__ = (
        *("_ahead", "_buffer", "_buffer_start", "_file", "_position", "_prefix", "_start"),
        *("error", "num_bytes", "steps_from"),
    )

    def __init__(self, file: SupportsRead, start: int = 0, end: int | None = None) -> None:
        self._file = file
        self._start = start
        self._prefix = b""
        self._buffer, self._buffer_start, self._position = b"", 0, 0
        self._ahead = FIRST_READ_BYTES
        self.error: Exception | None = None
        self.num_bytes = self.steps_from = (file.seek(0, SEEK_END) if end is None else end) - start

    def head(self) -> bytes:
        """Return the first bytes.

        Raises:
            Exception: the exception of the file.
        """
        first = bytearray(min(HEAD_BYTES, self.num_bytes))
        self.steps_from = self.num_bytes
        self.readinto(memoryview(first))
        self._position = 0
        if self.error:
            raise self.error
        return bytes(first)

    def part(self, start: int, end: int) -> "FileReader":
        """Return a reader of the bytes between two places."""
        return FileReader(self._file, start, end)

    def behind(self, prefix: bytes) -> "FileReader":
        """Prepend bytes to this reader and return it."""
        self._prefix = prefix
        self.num_bytes = self.steps_from = self.num_bytes + len(prefix)
        self._buffer = b""
        return self

    def seek(self, offset: int, whence: int = SEEK_SET) -> int:
        """Move the position and return it. An invalid position leaves it unchanged, as a failed lseek does."""
        start = {SEEK_SET: 0, SEEK_CUR: self._position, SEEK_END: self.num_bytes}[whence]
        if 0 <= start + offset < FARTHEST_SEEK:
            self._position = start + offset
        return self._position

    def tell(self) -> int:
        """Return the position of the next byte."""
        return self._position

    def readinto(self, buffer: memoryview) -> int:
        """Copy the next bytes into `buffer`. Returns their number."""
        if self._position + len(buffer) > self.steps_from:
            buffer = memoryview(buffer)[:STEP_BYTES]
        done = 0
        while done < len(buffer) and (part := self._next(len(buffer) - done)):
            buffer[done : done + len(part)] = part
            done += len(part)
            self._position += len(part)
        return done

    def _next(self, most: int) -> bytes | memoryview:
        """Return some of the next bytes; empty at the end, or after the file has failed."""
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
            self._file.seek(self._start + self._position - len(self._prefix), SEEK_SET)
            self._buffer = self._file.read(min(self._ahead, self.num_bytes - self._position))
        except Exception as error:
            self._buffer, self.error = b"", error


Reader = ByteReader | FileReader


def read_headers(
    recordings: Iterable[Recording | None], *, counted: bool = False
) -> Iterator[AudioHeader | AudioError]:
    """Yield the header of each recording in order, as `read_header`, or the error that prevented reading it."""
    for audio in recordings:
        try:
            yield read_header(audio, counted=counted)
        except AudioError as error:
            yield error.with_traceback(None)


def read_header(audio: Recording | None, *, counted: bool = False) -> AudioHeader:
    """Read the header of a recording, or of the first of its joined streams, without decoding.

    Args:
        audio: the recording.
        counted: whether `num_frames` is None unless it counts the frames of the whole recording.

    Raises:
        AudioError: As `decode`, for errors before the first frame.
    """
    reader = open_reader(audio)
    streams = Streams(reader)
    with open_stream(reader, streams, streams.at(0, by_header=True)) as opened:
        header = opened.header
    if not counted or header.num_frames is None:
        return header
    counts = counts_all(streams, header.container, header.num_frames)
    if reader.error:
        raise reader.error
    return header if counts else replace(header, num_frames=None)


@dataclass(frozen=True, slots=True)
class Opened:
    """A stream of a recording, opened by a decoder."""

    source: Source | MediaSource | OpusSource
    header: AudioHeader
    stream: Stream
    reader: "Reader"
    """Reader of the bytes of the stream."""
    again: "Callable[[], AbstractContextManager[Opened]]"
    """Function that opens the stream by libsndfile, where PyAV gives up."""


@contextmanager
def open_stream(whole: "Reader", streams: Streams, stream: Stream, *, by_opus: bool = False) -> Iterator[Opened]:
    """Open a stream of a recording by its content. Errors of a decoder while it is open are raised as `corrupt_audio`.

    Args:
        whole: reader of the recording.
        streams: its streams.
        stream: the stream.
        by_opus: whether Opus is decoded by PyAV, if that is installed.

    Raises:
        AudioError: `no_audio`, `unsupported_format`, `corrupt_audio`, `invalid_audio` or `out_of_memory`.
        Exception: the exception of reading a file, which libsndfile sees as the end of the file.
    """
    reader = _part(whole, stream)
    reader.steps_from = reader.num_bytes
    opening = Opening(reader.head(), reader.num_bytes)
    container = sniff(opening)
    if container is None:
        raise unknown(opening)
    try:
        with ExitStack() as stack:
            if container in MEDIA:
                source: Source | MediaSource | OpusSource = stack.enter_context(open_media(reader, opening, container))
            elif by_opus and container == "OGG" and (opus := open_opus(reader)) is not None:
                source = opus
            else:
                try:
                    source = stack.enter_context(_open(reader, opening, container))
                except AudioError as error:
                    rebuilt = streams.rebuilt(stream) if error.error_type == "corrupt_audio" else None
                    if rebuilt is None:
                        raise
                    stream, reader = rebuilt, _part(whole, rebuilt)
                    source = stack.enter_context(_open(reader, opening, container))
            again = partial(open_stream, whole, streams, stream)
            yield Opened(source, _check_header(source, opening), stream, reader, again)
    except soundfile.LibsndfileError as error:
        if reader.error:
            raise reader.error from None
        message = f"{container}: libsndfile reports {error.error_string!r} while decoding, {describe(opening)}"
        raise AudioError("corrupt_audio", f"{message}; expected a stream without errors") from None
    except AudioError:
        if reader.error:
            raise reader.error from None
        raise
    if reader.error:
        raise reader.error


def _part(whole: "Reader", stream: Stream) -> "Reader":
    if not stream.head and (stream.start, stream.end) == (0, whole.num_bytes):
        whole.seek(0)
        return whole
    part = whole.part(stream.start, stream.end)
    return part.behind(stream.head) if stream.head else part


def open_reader(audio: Recording | None) -> Reader:
    """Return a reader of a recording, without a copy.

    Raises:
        AudioError: `no_audio` if it is None or empty.
    """
    given = require_recording(audio)
    reader = FileReader(given) if is_file(given) else ByteReader(memoryview(given).cast("B"))
    if reader.num_bytes == 0:
        raise AudioError("no_audio", "found 0 bytes; expected the bytes of a recording")
    return reader


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
    if source.format == "FLAC":
        reader.steps_from = max(0, reader.num_bytes - AHEAD_BYTES)
    if source.format == "MP3":
        source.seek(0)  # as soundfile.read does: mpg123 then starts from the same state, bit for bit
    return source


def _check_header(source: Source | MediaSource | OpusSource, opening: Opening) -> AudioHeader:
    if source.format not in CONTAINERS | MEDIA.keys():
        raise unsupported(opening, f"found {source.format}")
    if not MIN_SAMPLE_RATE <= source.samplerate <= MAX_SAMPLE_RATE:
        expected = f"expected {MIN_SAMPLE_RATE} to {MAX_SAMPLE_RATE}"
        raise AudioError("invalid_audio", f"{source.format}: sample rate {source.samplerate} Hz; {expected}")
    if not 1 <= source.channels <= MAX_CHANNELS:
        raise AudioError(
            "invalid_audio", f"{source.format}: {count(source.channels, 'channel')}; expected 1 to {MAX_CHANNELS}"
        )
    claimed = source.claimed_frames if isinstance(source, MediaSource) else source.frames
    num_frames = claimed if claimed is not None and 0 <= claimed < UNKNOWN_FRAMES else None
    return AudioHeader(source.samplerate, source.channels, num_frames, source.format, source.subtype, opening.num_bytes)
