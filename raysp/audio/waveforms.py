"""Values of decoding: recordings, their parts and headers, their samples, and the windows that a model processes.

Frame k of a recording starts at sample `k * frame_stride`, and windows start at multiples of it, so a window's frames
are frames of the recording. Neighbouring windows overlap. Each shared frame is taken from the window in which it is
farther from an edge, so the joint is in the middle of the overlap. All windows except the last have the same length.
The last one holds at least one frame that its neighbour lacks, and the samples after the last whole frame. It is
longer than the overlap, and less than a stride longer than the others.

Texts of a decoder cannot be joined by frames. For them, windows do not overlap: each ends at the quietest point of its
last `overlap_seconds`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Protocol, Self, cast

import numpy as np
import numpy.typing as npt

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
    key: str | None = None
    """Identifier of the recording's content, by which decoding of a later part goes on; None: it begins anew."""


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


Samples = npt.NDArray[np.float32 | np.int16]

GROWTH = 1.25  # numpy zeroes the added memory, so this is also the ratio of peak to result

# libsndfile decodes these to 16 bits or fewer and divides by 32768 for float32, so int16 is lossless.
INT16_SUBTYPES = frozenset(
    {
        "PCM_16",
        "PCM_S8",
        "PCM_U8",
        "ULAW",
        "ALAW",
        "IMA_ADPCM",
        "MS_ADPCM",
        "GSM610",
        "G721_32",
        "G723_24",
        "G723_40",
        "NMS_ADPCM_16",
        "NMS_ADPCM_24",
        "NMS_ADPCM_32",
        "ALAC_16",
    }
)
# Integers cannot hold NaN. All other subtypes are checked.
FINITE_SUBTYPES = INT16_SUBTYPES | {"PCM_24", "PCM_32", "ALAC_20", "ALAC_24", "ALAC_32"}


def choose_dtype(header: AudioHeader, channel: Channel, sample_rate: int) -> Literal["int16", "float32"]:
    """Return the type of decoded samples: int16 where that loses nothing."""
    is_one_channel = header.channels == 1 or channel != "mean"
    is_lossless = is_one_channel and header.sample_rate == sample_rate and header.subtype in INT16_SUBTYPES
    return "int16" if is_lossless else "float32"


def mix(frames: Samples, channel: Channel) -> Samples:
    """Convert (num_frames, channels) to one channel (num_frames,)."""
    if channel != "mean" or frames.shape[1] == 1:
        return np.ascontiguousarray(frames[:, 0 if channel == "mean" else channel])
    with np.errstate(over="ignore", invalid="ignore"):  # checked afterwards
        if frames.shape[1] == 2:  # the same sum as `mean`, several times faster than a reduction over two channels
            return (frames[:, 0] + frames[:, 1]) * np.float32(0.5)
        mean: Samples = frames.mean(axis=1, dtype=np.float32)
        return mean


def resample(
    chunks: Iterator[tuple[Samples, bool]], source_rate: int, sample_rate: int
) -> Iterator[tuple[Samples, bool]]:
    """Resample chunk by chunk. The result is bit-equal to `soxr.resample` of the whole recording."""
    import soxr

    # A recording of one chunk needs no stream, whose result is equal bit by bit.
    samples, is_last = next(chunks)
    if is_last:
        yield soxr.resample(samples, source_rate, sample_rate, quality="HQ"), True
        return
    stream = soxr.ResampleStream(source_rate, sample_rate, 1, dtype="float32", quality="HQ")
    yield stream.resample_chunk(samples), False
    for samples, is_last in chunks:
        yield stream.resample_chunk(samples, last=is_last), is_last


def check_finite(samples: Samples, header: AudioHeader) -> None:
    """Raise if samples are not finite.

    Raises:
        AudioError: `invalid_audio`.
    """
    if not np.isfinite(samples).all():
        message = f"{header.container} {header.subtype}: NaN or infinite samples; expected finite ones"
        raise AudioError("invalid_audio", message)


def join(chunks: Iterator[Samples]) -> Samples:
    """Concatenate chunks in an array that grows in place (realloc moves pages, not bytes)."""
    first = next(chunks)
    num_samples = len(first)
    samples = first
    for chunk in chunks:
        if samples.dtype == np.int16 and chunk.dtype != np.int16:
            samples, first = as_float32(samples[:num_samples]), chunk
        elif samples.dtype != chunk.dtype:
            chunk = as_float32(chunk)
        if samples is first:
            samples = first.copy()  # memory of soxr cannot be resized
        if num_samples + len(chunk) > len(samples):
            # refcheck counts names of this function; nothing else refers to the array.
            samples.resize(int((num_samples + len(chunk)) * GROWTH), refcheck=False)
        samples[num_samples : num_samples + len(chunk)] = chunk
        num_samples += len(chunk)
    if num_samples < len(samples):
        samples.resize(num_samples, refcheck=False)
    return samples


def concatenate(parts: Sequence[Samples]) -> Samples:
    """Concatenate samples, which are of joined streams if their dtypes differ: int16 if all are, else float32."""
    if len({part.dtype for part in parts}) > 1:
        parts = [as_float32(part) for part in parts]
    return np.concatenate(parts)


def as_float32(samples: Samples) -> npt.NDArray[np.float32]:
    """Return samples as float32."""
    return samples * np.float32(1 / 32768) if samples.dtype == np.int16 else cast("npt.NDArray[np.float32]", samples)


QUIET_SECONDS = 0.2
"""Length of the stretches whose loudness is compared: longer than the closure of a stop, shorter than a pause."""


@dataclass(frozen=True)
class Windowing:
    """Parameters for cutting recordings into windows, in samples and frames."""

    sample_rate: int
    frame_stride: int
    """Samples from one frame to the next."""
    min_samples: int
    """Minimum samples for one frame."""
    window_samples: int
    step_frames: int
    """Frames from one window's start to the next one's. With `at_quiet_points`, the earliest end of a window."""
    at_quiet_points: bool = False
    """Whether windows do not overlap and end at quiet points."""
    least_samples: int = 0
    """Samples of the shortest input of the model, which the rest after a quiet point has."""

    @classmethod
    def of(
        cls,
        *,
        sample_rate: int,
        frame_stride: int,
        min_samples: int,
        window_seconds: float,
        overlap_seconds: float,
        at_quiet_points: bool = False,
        least_samples: int = 0,
        group_frames: int = 1,
    ) -> Self:
        """Convert seconds to whole samples and strides. Windows overlap by at least `overlap_seconds`.

        Windows start at multiples of `group_frames`, the number of frames that some models merge internally.

        Windows always overlap by the difference of a frame's length and the stride, so that no frame is lost between
        two.

        Raises:
            ValueError: a window would be shorter than one frame.
        """
        window_samples = int(window_seconds * sample_rate)
        num_frames = (window_samples - min_samples) // frame_stride + 1
        if num_frames < 1:
            raise ValueError(
                f"window_seconds={window_seconds:g} is {window_samples} samples at {sample_rate} Hz; "
                f"the model needs at least {min_samples}"
            )
        step_frames = int((window_seconds - overlap_seconds) * sample_rate) // frame_stride
        step_frames = max(1, min(step_frames, num_frames))
        step_frames = max(step_frames - step_frames % group_frames, min(group_frames, num_frames))
        return cls(sample_rate, frame_stride, min_samples, window_samples, step_frames, at_quiet_points, least_samples)

    @property
    def window_seconds(self) -> float:
        """Seconds of each window except the last."""
        return self.window_samples / self.sample_rate

    @property
    def step_samples(self) -> int:
        """Samples from one window's start to the next one's."""
        return self.step_frames * self.frame_stride

    @property
    def frame_seconds(self) -> float:
        """Seconds from one frame to the next."""
        return self.frame_stride / self.sample_rate

    @property
    def shared_frames(self) -> int:
        """Number of frames that a window shares with the next one."""
        return self.num_frames(self.window_samples) - self.step_frames

    def added_samples(self, num_samples: int) -> int:
        """Return the number of samples that a window, not the last one, adds to the samples of earlier windows."""
        return num_samples if self.at_quiet_points else self.step_samples

    def num_frames(self, num_samples: int) -> int:
        """Return the number of frames of a window."""
        return max(0, (num_samples - self.min_samples) // self.frame_stride + 1)

    def num_windows(self, num_samples: int) -> int:
        """Return the number of windows of a recording."""
        beyond = self.num_frames(num_samples) - self.num_frames(self.window_samples)
        return 1 + max(0, -(-beyond // self.step_frames))

    def owned_frames(self, window: int, num_samples: int, *, is_last: bool) -> tuple[int, int]:
        """Return the range of a window's frames whose results are taken from it.

        Args:
            window: index of the window in the recording, from 0.
            num_samples: length of the window in samples.
            is_last: whether it is the last window of the recording.

        Returns:
            The first frame, and the one after the last.
        """
        if self.at_quiet_points:
            return 0, self.num_frames(num_samples)
        joint = (self.shared_frames + 1) // 2
        first = joint if window else 0
        return first, self.num_frames(num_samples) if is_last else self.step_frames + joint


def cut_windows(chunks: Iterator[Samples], windowing: Windowing) -> Iterator[tuple[Samples, bool]]:
    """Cut a recording into windows while it is decoded. Yields (window, whether it is the last).

    Memory holds one window and one chunk. A yielded window keeps no other samples in memory.
    """
    if windowing.at_quiet_points:
        yield from _cut_at_quiet_points(chunks, windowing)
        return
    # One frame more than a window has: otherwise it could be the last.
    enough = windowing.num_frames(windowing.window_samples) * windowing.frame_stride + windowing.min_samples
    samples = next(chunks)
    while True:
        start = 0
        while len(samples) - start >= enough:
            yield samples[start : start + windowing.window_samples].copy(), False
            start += windowing.step_samples
        samples = samples[start:].copy() if start else samples
        following = next(chunks, None)
        if following is None:
            yield samples, True
            return
        samples = concatenate([samples, following])


def _cut_at_quiet_points(chunks: Iterator[Samples], windowing: Windowing) -> Iterator[tuple[Samples, bool]]:
    samples = next(chunks)
    is_end = False
    while True:
        start = 0
        enough = windowing.window_samples + (0 if is_end else windowing.least_samples)  # so that no end stays unseen
        while len(samples) - start > enough:
            end = start + _quiet_point(samples[start:], windowing)
            yield samples[start:end].copy(), False
            start = end
        samples = samples[start:].copy() if start else samples
        if is_end:
            yield samples, True
            return
        following = next(chunks, None)
        is_end = following is None
        samples = samples if following is None else concatenate([samples, following])


def _quiet_point(samples: Samples, windowing: Windowing) -> int:
    """Return the end of a window in samples, a multiple of the stride: the middle of its quietest `QUIET_SECONDS`.

    The rest of the recording then holds at least one frame, and what the model needs.
    """
    stride, window = windowing.frame_stride, samples[: windowing.window_samples]
    most = min(len(window) - windowing.min_samples, len(samples) - windowing.least_samples) // stride
    first = min(windowing.step_frames, max(1, most))
    latest = max(first, most)
    half = max(1, round(QUIET_SECONDS / 2 * windowing.sample_rate / stride))
    before = max(0, first - half)
    # In float64: squares of int16 samples overflow, and differences of long sums lose digits in float32.
    strides = window[before * stride : (len(window) // stride) * stride].astype(np.float64).reshape(-1, stride)
    energy = np.concatenate([[0.0], np.cumsum((strides**2).sum(1))])
    points = np.arange(first, latest + 1)
    begins, ends = np.maximum(points - half - before, 0), np.minimum(points + half - before, len(strides))
    loudness = (energy[ends] - energy[begins]) / np.maximum(ends - begins, 1)
    return int(points[loudness.argmin()]) * stride
