"""Values of decoding: recordings, their parts and headers, and options."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Protocol

from raysp.errors import AudioError

if TYPE_CHECKING:
    from typing_extensions import TypeIs

Channel = Literal["mean"] | int
"""The mean of all channels, or the index of one."""


class SupportsBuffer(Protocol):
    """Anything with the buffer protocol: bytes, bytearray, memoryview, numpy.ndarray, pyarrow.Buffer."""

    def __buffer__(self, flags: int, /) -> memoryview:
        """Return a view of the bytes."""
        ...


class SupportsRead(Protocol):
    """A seekable binary file: an open file, `io.BytesIO`, `pyarrow.NativeFile`."""

    def read(self, num_bytes: int, /) -> bytes:
        """Read at most `num_bytes`. Fewer are returned only at the end."""
        ...

    def seek(self, offset: int, whence: int, /) -> int:
        """Move the position and return it."""
        ...


Recording = SupportsBuffer | SupportsRead
"""A recording's bytes, or a file that holds only the recording. The file's position changes; it is not closed."""


@dataclass(frozen=True, slots=True)
class Excerpt:
    """A recording, or a part of it."""

    audio: Recording | None
    offset: float = 0.0
    """Seconds to skip at the start."""
    duration: float | None = None
    """Seconds to decode; None for all up to the end."""
    channel: int | None = None
    """Index of the channel to decode; None: as the options of decoding have it."""


@dataclass(frozen=True, slots=True)
class AudioHeader:
    """Header of a recording. Its values may be wrong, so they are suitable only for ordering rows.

    `num_frames` is None where the header has no such field (FLAC written to a pipe).
    """

    sample_rate: int
    channels: int
    num_frames: int | None
    container: str
    subtype: str
    num_bytes: int

    @property
    def seconds(self) -> float:
        """Claimed seconds. Without a claim, an estimate for 16-bit samples compressed by two."""
        num_frames = self.num_bytes / self.channels if self.num_frames is None else self.num_frames
        return num_frames / self.sample_rate


@dataclass(frozen=True, slots=True)
class DecodeOptions:
    """Requested properties of the decoded samples."""

    sample_rate: int
    """Sample rate in Hz."""
    channel: Channel = "mean"
    """`"mean"` of all channels, or the index of one."""
    max_seconds: float = 43200
    """Maximum seconds to decode."""
    keep_prefix: bool = False
    """Whether `decode_chunks` yields all samples before the damage of a recording, and then raises its error."""

    same_channels: bool = False
    """Whether joined streams with other numbers of channels are an error, since each channel is decoded."""

    def of(self, excerpt: Excerpt) -> "DecodeOptions":
        """Return the options with the channel of an excerpt, if it names one."""
        return self if excerpt.channel is None else replace(self, channel=excerpt.channel, same_channels=True)


class TooLong(Exception):  # noqa: N818 - not an error: the row is `skipped: too_long`
    """A recording longer than `max_seconds`. Decoding stopped after `seconds`."""

    def __init__(self, seconds: float, max_seconds: float) -> None:
        super().__init__(seconds, max_seconds)
        self.seconds = seconds
        self.max_seconds = max_seconds

    def __str__(self) -> str:
        return f"longer than max_seconds={self.max_seconds:g}; stopped after {self.seconds:.3f} seconds"


def require_recording(audio: Recording | None) -> Recording:
    """Return the recording.

    Raises:
        AudioError: `no_audio` if it is None.
    """
    if audio is None:
        raise AudioError("no_audio", "found null; expected the bytes of a recording")
    return audio


def is_file(audio: Recording) -> "TypeIs[SupportsRead]":
    """Return whether a recording is a file, not bytes (`io.BytesIO` and `mmap` are files)."""
    return hasattr(audio, "read")
