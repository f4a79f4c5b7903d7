"""Streams of a recording: opened by their content, with a checked header."""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import replace

from raysp.audio.container import (
    HEAD_BYTES,
    MEDIA,
    SOUND_FILES,
    Opening,
    is_for_media,
    sniff,
    unknown,
    unsupported,
)
from raysp.audio.joints import following, front
from raysp.audio.media import MediaStream, open_media
from raysp.audio.recording_bytes import RecordingBytes, bytes_of
from raysp.audio.sound_files import SoundFileStream
from raysp.audio.waveforms import AudioHeader, Recording
from raysp.errors import AudioError
from raysp.words import count

# Files of 1 kHz and 1 MHz exist and are labelled. Far below there is no speech, and a byte at 1 Hz would become 64 KB.
# At the upper end, DSD128 has 5.6 MHz, the highest rate of any recorder.
MIN_SAMPLE_RATE, MAX_SAMPLE_RATE = 100, 10_000_000
MAX_CHANNELS = 1024  # libsndfile's own bound
COUNTED_SECONDS, COUNTED_SHARE = 0.1, 0.002
"""Largest difference between the duration in a header and the duration of the packets."""

Stream = SoundFileStream | MediaStream


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
    data = bytes_of(audio)
    with open_stream(data, 0, seekable=True) as stream:
        header = stream.header
    is_known = not counted or (header.num_frames is not None and _counts_all(data, header.seconds))
    return header if is_known else replace(header, num_frames=None)


def _counts_all(data: RecordingBytes, seconds: float) -> bool:
    """Return whether a recording has no more than the seconds of its header, by reading its packets undecoded."""
    try:
        with open_stream(data, 0) as stream:
            counted = stream.counted_seconds()
            is_close = counted is not None and abs(counted - seconds) <= COUNTED_SECONDS + COUNTED_SHARE * seconds
            return is_close and following(data, stream.end_place(), stream.header.container) is None
    except AudioError:
        return False


@contextmanager
def open_stream(data: RecordingBytes, place: int, *, seekable: bool = False) -> Iterator[Stream]:
    """Open the stream of a recording that begins at a place, after tags and zeros, by its content.

    Args:
        data: the recording.
        place: the place.
        seekable: whether its end is looked at for its duration.

    Raises:
        AudioError: `no_audio`, `unsupported_format`, `corrupt_audio`, `invalid_audio` or `out_of_memory`.
        Exception: the exception of reading a file, which decoders see as the end of the file.
    """
    start = front(data, place)
    opening = Opening(data.at(start, HEAD_BYTES), data.num_bytes - start)
    container = sniff(opening.head)
    try:
        if data.error:
            raise data.error
        if container is None:
            raise unknown(opening)
        with _open(data, start, opening, container, seekable=seekable) as stream:
            _check_header(stream.header, opening)
            yield stream
    except AudioError:
        if data.error:
            raise data.error from None
        raise
    if data.error:
        raise data.error


def _open(
    data: RecordingBytes, start: int, opening: Opening, container: str, *, seekable: bool
) -> AbstractContextManager[Stream]:
    if container in MEDIA or is_for_media(opening, container):
        return open_media(data, start, opening, container, seekable=seekable)
    return closing(SoundFileStream(data, start, opening, container))


def _check_header(header: AudioHeader, opening: Opening) -> None:
    if header.container not in SOUND_FILES | MEDIA.keys():
        raise unsupported(opening, f"found {header.container}")
    if not MIN_SAMPLE_RATE <= header.sample_rate <= MAX_SAMPLE_RATE:
        expected = f"expected {MIN_SAMPLE_RATE} to {MAX_SAMPLE_RATE}"
        raise AudioError("invalid_audio", f"{header.container}: sample rate {header.sample_rate} Hz; {expected}")
    if not 1 <= header.channels <= MAX_CHANNELS:
        raise AudioError(
            "invalid_audio", f"{header.container}: {count(header.channels, 'channel')}; expected 1 to {MAX_CHANNELS}"
        )
