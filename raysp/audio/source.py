"""An open recording: its checked header, and its frames in the order they come."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from os import SEEK_CUR, SEEK_END, SEEK_SET
from typing import Protocol

import soundfile

from raysp.audio.container import CONTAINERS, describe, refusal, sniff, unsupported
from raysp.errors import AudioError

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


class SupportsBuffer(Protocol):
    """Anything with the buffer protocol: bytes, bytearray, memoryview, numpy.ndarray, pyarrow.Buffer."""

    def __buffer__(self, flags: int, /) -> memoryview:
        """Lend the bytes."""
        ...


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

    __slots__ = ("_position", "_view")

    def __init__(self, view: memoryview) -> None:
        self._view = view
        self._position = 0

    def seek(self, offset: int, whence: int = SEEK_SET) -> int:
        """Move; to a place that cannot be, stay, as a failed lseek does."""
        start = {SEEK_SET: 0, SEEK_CUR: self._position, SEEK_END: len(self._view)}[whence]
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


def read_header(audio: SupportsBuffer | None) -> AudioHeader:
    """Read what a recording claims, without decoding it.

    Raises:
        AudioError: As `decode` does, for what is wrong before the first frame.
    """
    with open_source(audio) as (_, header):
        return header


@contextmanager
def open_source(audio: SupportsBuffer | None) -> Iterator[tuple[Source, AudioHeader]]:
    """Open a recording by its content; whatever libsndfile then reports while it is open becomes `corrupt_audio`.

    Raises:
        AudioError: `no_audio`, `unsupported_format`, `corrupt_audio` or `invalid_audio`.
    """
    view = view_bytes(audio)
    container = sniff(view)
    if container is None:
        raise unsupported(view, "no known audio format")
    source = _open(view, container)
    try:
        with source:
            yield source, _check_header(source, view)
    except soundfile.LibsndfileError as error:
        message = f"{container}: libsndfile says {error.error_string!r} while decoding, {describe(view)}"
        raise AudioError("corrupt_audio", f"{message}; expected a stream without errors") from None


def view_bytes(audio: SupportsBuffer | None) -> memoryview:
    """View a recording as bytes, without a copy.

    Raises:
        AudioError: `no_audio` when there is none.
    """
    if audio is None:
        raise AudioError("no_audio", "found null; expected the bytes of a recording")
    view = memoryview(audio)
    if view.nbytes == 0:
        raise AudioError("no_audio", "found 0 bytes; expected the bytes of a recording")
    return view.cast("B")


def _open(view: memoryview, container: str) -> Source:
    try:
        try:
            return _open_from_the_start(ByteReader(view))
        except soundfile.LibsndfileError as error:
            if container != "MP3" or error.code not in RESOURCE_FORK_ERRORS:
                raise
        return _open_from_the_start(ByteReader(memoryview(EMPTY_ID3 + view)))
    except soundfile.LibsndfileError as error:
        raise refusal(view, container, error.code, error.error_string) from None


def _open_from_the_start(reader: ByteReader) -> Source:
    source = Source(reader)
    if source.format == "MP3":
        source.seek(0)  # as soundfile.read does: mpg123 then starts from the same state, bit for bit
    return source


def _check_header(source: Source, view: memoryview) -> AudioHeader:
    if source.format not in CONTAINERS:
        raise unsupported(view, f"found {source.format}")
    if not MIN_SAMPLE_RATE <= source.samplerate <= MAX_SAMPLE_RATE:
        expected = f"expected {MIN_SAMPLE_RATE} to {MAX_SAMPLE_RATE}"
        raise AudioError("invalid_audio", f"{source.format}: sample rate {source.samplerate} Hz; {expected}")
    if not 1 <= source.channels <= MAX_CHANNELS:
        raise AudioError("invalid_audio", f"{source.format}: {source.channels} channels; expected 1 to {MAX_CHANNELS}")
    num_frames = source.frames if 0 <= source.frames < UNKNOWN_FRAMES else None
    return AudioHeader(source.samplerate, source.channels, num_frames, source.format, source.subtype, len(view))
