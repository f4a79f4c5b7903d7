"""Decoding of a recording to mono samples at one rate. Memory use does not depend on the recording's header."""

import math
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal, cast

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from raysp.audio.media import MediaSource
from raysp.audio.source import AudioHeader, Excerpt, Recording, Source, open_source
from raysp.errors import AudioError
from raysp.words import count

Samples = npt.NDArray[np.float32 | np.int16]
Channel = Literal["mean"] | int

CHUNK_SAMPLES = 1 << 20  # over all channels, 4 MB of float32: most utterances are one chunk, the fastest case
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
# A seek in these gives the same frames as decoding up to the position, bit for bit. In predictive codecs it does not.
SEEKABLE_SUBTYPES = frozenset({"PCM_16", "PCM_S8", "PCM_U8", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"})


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

    def of(self, excerpt: Excerpt) -> "DecodeOptions":
        """Return the options with the channel of an excerpt, if it names one."""
        return self if excerpt.channel is None else replace(self, channel=excerpt.channel)


class TooLong(Exception):  # noqa: N818 - not an error: the row is `skipped: too_long`
    """A recording longer than `max_seconds`. Decoding stopped after `seconds`."""

    def __init__(self, seconds: float, max_seconds: float) -> None:
        super().__init__(seconds, max_seconds)
        self.seconds = seconds
        self.max_seconds = max_seconds

    def __str__(self) -> str:
        return f"longer than max_seconds={self.max_seconds:g}; stopped after {self.seconds:.3f} seconds"


def decode(
    audio: Recording | None,
    *,
    sample_rate: int,
    channel: Channel = "mean",
    max_seconds: float = 43200,
    offset: float = 0.0,
    duration: float | None = None,
) -> Samples:
    """Decode a recording, or a part of it, to mono samples (num_samples,) at `sample_rate`.

    Samples are float32, nominally within -1 and 1 (not clipped), or int16, to be divided by 32768, where that equals
    the float32 value bit for bit: one channel of at most 16 bits, already at `sample_rate`. The dtype depends on the
    format, not on the data. Channels are averaged in float32. Rates are converted by `soxr` with quality HQ. The result
    for a recording without frames is empty.

    A part starts at frame `round(offset * rate)` and has at most `round(duration * rate)` frames, at the recording's
    own rate. It equals the result for a file of these frames alone.

    Args:
        audio: The encoded bytes, contiguous, read in place; or a seekable file, read in ranges.
        sample_rate: Sample rate of the result in Hz.
        channel: `"mean"` of all channels, or the index of one.
        max_seconds: Maximum seconds to decode.
        offset: Seconds to skip at the start.
        duration: Seconds to decode; None for all up to the end.

    Raises:
        AudioError: With the row's `error_type`: `no_audio` (None or empty), `unsupported_format`, `corrupt_audio`,
            `invalid_audio`.
        TooLong: The recording is longer than `max_seconds`.
    """
    return join(decode_chunks(Excerpt(audio, offset, duration), DecodeOptions(sample_rate, channel, max_seconds)))


def decode_all(excerpts: Iterable[Excerpt], options: DecodeOptions) -> Iterator[Samples | AudioError | TooLong]:
    """Yield the samples of each recording in order, or the error that prevented decoding."""
    for one in excerpts:
        try:
            yield join(decode_chunks(one, options))
        except (AudioError, TooLong) as error:
            yield error.with_traceback(None)


def decode_chunks(excerpt: Excerpt, options: DecodeOptions) -> Iterator[Samples]:
    """Decode a recording in chunks. Yields the samples of `decode` in one or more arrays of the same dtype.

    Memory does not depend on the recording. Raises the errors of `decode` while the chunks are consumed. With
    `keep_prefix` the samples before `corrupt_audio` or `invalid_audio` equal the result for a file of the frames before
    the first one that cannot be decoded, or is not finite.
    """
    options = options.of(excerpt)
    channel, sample_rate = options.channel, options.sample_rate
    damage = Damage() if options.keep_prefix else None
    for may_seek in (True, False):
        with open_source(excerpt.audio) as (source, header):
            if channel != "mean" and not 0 <= channel < header.channels:
                raise AudioError(
                    "invalid_audio", f"{count(header.channels, 'channel')}; expected one with index {channel!r}"
                )
            first, num_frames = _part(header, excerpt.offset, excerpt.duration)
            if not _go_to(source, header, first, may_seek=may_seek):
                continue  # a failed seek leaves the decoder unusable: reopen and decode up to the part
            dtype = choose_dtype(header, channel, sample_rate)
            frames_left = min(source.frames - first, num_frames)
            chunks = _read_mono(source, header, options, dtype, frames_left, damage)
            if header.sample_rate != sample_rate:
                chunks = _resample(chunks, header.sample_rate, sample_rate)
            for samples, _ in chunks:
                if header.sample_rate != sample_rate and header.subtype not in FINITE_SUBTYPES:
                    _check_finite(samples, header)  # resampling may overflow though its input is finite
                yield samples
            if damage is not None and damage.error is not None:
                raise damage.error
            return


@dataclass
class Damage:
    """The error that ended the frames of a recording early, to be raised once they are used; None: no error."""

    error: AudioError | soundfile.LibsndfileError | None = None


def _part(header: AudioHeader, offset: float, duration: float | None) -> tuple[int, int]:
    """Return the first frame of a part, and its maximum number of frames."""
    for name, seconds in (("offset", offset), ("duration", duration)):
        if seconds is not None and not 0 <= seconds < math.inf:
            raise AudioError("invalid_audio", f"{name} of {seconds!r} seconds; expected a number from 0 on")
    most = sys.maxsize if duration is None else round(duration * header.sample_rate)
    return round(offset * header.sample_rate), most


def _go_to(source: Source | MediaSource, header: AudioHeader, frame: int, *, may_seek: bool) -> bool:
    """Move to a frame, by a seek where the format supports exact seeks, else by decoding up to it.

    Returns False if the seek failed.

    Raises:
        AudioError: the recording ends before the frame.
    """
    if frame == 0:
        return True
    if frame > source.frames:
        raise _ends_before(header, source.frames, frame)
    if may_seek and header.subtype in SEEKABLE_SUBTYPES and header.container != "OGG":
        try:
            return bool(source.seek(frame) == frame)
        except soundfile.LibsndfileError:
            return False
    place, chunk_frames = 0, max(1, CHUNK_SAMPLES // header.channels)
    while place < frame:
        num_wanted = min(chunk_frames, frame - place)
        num_read = len(source.read(num_wanted, dtype="float32", always_2d=True))
        place += num_read
        if num_read < num_wanted:
            raise _ends_before(header, place, frame)
    return True


def _ends_before(header: AudioHeader, num_frames: int, frame: int) -> AudioError:
    seconds, offset = num_frames / header.sample_rate, frame / header.sample_rate
    return AudioError(
        "invalid_audio", f"the file ends after {seconds:.3f} seconds; expected more than offset={offset:g}"
    )


def choose_dtype(header: AudioHeader, channel: Channel, sample_rate: int) -> Literal["int16", "float32"]:
    """Return the type of decoded samples: int16 where that loses nothing."""
    is_one_channel = header.channels == 1 or channel != "mean"
    is_lossless = is_one_channel and header.sample_rate == sample_rate and header.subtype in INT16_SUBTYPES
    return "int16" if is_lossless else "float32"


def _read_mono(
    source: Source | MediaSource,
    header: AudioHeader,
    options: DecodeOptions,
    dtype: Literal["int16", "float32"],
    frames_left: int,
    damage: Damage | None,
) -> Iterator[tuple[Samples, bool]]:
    """Yield (samples, whether they are the last) until `frames_left` frames are read or the stream ends.

    With `damage` the stream ends before its first error, which is recorded there.
    """
    max_frames = options.max_seconds * header.sample_rate
    rates = math.ceil(options.sample_rate / header.sample_rate / 4)
    chunk_frames = max(1, CHUNK_SAMPLES // max(header.channels, rates))
    num_frames, is_last = 0, False
    while not is_last:
        # libsndfile returns at most the claimed frames, so a small claim saves a read and memory
        num_wanted = min(chunk_frames, frames_left - num_frames, math.ceil(max_frames) - num_frames + 1)
        frames = _read(source, num_wanted, dtype, damage)
        num_frames += len(frames)
        if num_frames > max_frames:
            raise TooLong(num_frames / header.sample_rate, options.max_seconds)
        is_last = len(frames) < num_wanted or num_frames >= frames_left
        if len(frames) < num_wanted // 2:
            frames = frames.copy()  # a view would keep the buffer that the header's claim sized
        samples = _mix(frames, options.channel)
        if header.subtype not in FINITE_SUBTYPES:
            samples = _finite(samples, header, damage)
            is_last = is_last or len(samples) < len(frames)
        yield samples, is_last


def _read(
    source: Source | MediaSource, num_wanted: int, dtype: Literal["int16", "float32"], damage: Damage | None
) -> Samples:
    """Return the next frames, (num_frames, channels); fewer at the end, and with `damage` before an error."""
    if damage is None:
        frames: Samples = source.read(num_wanted, dtype=dtype, always_2d=True)
        return frames
    if not isinstance(source, soundfile.SoundFile):
        frames, damage.error = source.read_to_damage(num_wanted)
        return frames
    first, frames = source.tell(), np.empty((num_wanted, source.channels), dtype)
    try:
        return cast("Samples", source.read(out=frames))
    except soundfile.LibsndfileError as error:
        damage.error = error
        return frames[: max(0, source.tell() - first)]  # libsndfile counts the frames before the error


def _finite(samples: Samples, header: AudioHeader, damage: Damage | None) -> Samples:
    """Return samples that are finite; with `damage` those before the first one that is not.

    Raises:
        AudioError: `invalid_audio`, without `damage`.
    """
    try:
        _check_finite(samples, header)
    except AudioError as error:
        if damage is None:
            raise
        damage.error = error
        return samples[: int(np.isfinite(samples).argmin())].copy()
    return samples


def _mix(frames: Samples, channel: Channel) -> Samples:
    """Convert (num_frames, channels) to one channel (num_frames,)."""
    if channel != "mean" or frames.shape[1] == 1:
        return np.ascontiguousarray(frames[:, 0 if channel == "mean" else channel])
    with np.errstate(over="ignore", invalid="ignore"):  # checked afterwards
        if frames.shape[1] == 2:  # the same sum as `mean`, several times faster than a reduction over two channels
            return (frames[:, 0] + frames[:, 1]) * np.float32(0.5)
        mean: Samples = frames.mean(axis=1, dtype=np.float32)
        return mean


def _resample(
    chunks: Iterator[tuple[Samples, bool]], source_rate: int, sample_rate: int
) -> Iterator[tuple[Samples, bool]]:
    """Resample chunk by chunk. The result is bit-equal to `soxr.resample` of the whole recording."""
    samples, is_last = next(chunks)
    if is_last:
        yield soxr.resample(samples, source_rate, sample_rate, quality="HQ"), True
        return
    stream = soxr.ResampleStream(source_rate, sample_rate, 1, dtype="float32", quality="HQ")
    yield stream.resample_chunk(samples), False
    for samples, is_last in chunks:
        yield stream.resample_chunk(samples, last=is_last), is_last


def _check_finite(samples: Samples, header: AudioHeader) -> None:
    if not np.isfinite(samples).all():
        message = f"{header.container} {header.subtype}: NaN or infinite samples; expected finite ones"
        raise AudioError("invalid_audio", message)


def join(chunks: Iterator[Samples]) -> Samples:
    """Concatenate chunks in an array that grows in place (realloc moves pages, not bytes)."""
    first = next(chunks)
    num_samples = len(first)
    samples = first
    for chunk in chunks:
        if samples is first:
            samples = first.copy()  # memory of soxr cannot be resized
        if num_samples + len(chunk) > len(samples):
            samples.resize(int((num_samples + len(chunk)) * GROWTH), refcheck=False)
        samples[num_samples : num_samples + len(chunk)] = chunk
        num_samples += len(chunk)
    if num_samples < len(samples):
        samples.resize(num_samples, refcheck=False)
    return samples
