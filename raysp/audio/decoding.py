"""Decoding of a recording to mono samples at one rate. Memory use does not depend on the recording's header."""

import math
import sys
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Literal, cast

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from raysp.audio.media import MediaSource
from raysp.audio.source import AudioHeader, Excerpt, Opened, Recording, Source, open_reader, open_stream
from raysp.audio.streams import Ended, Stream, Streams
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
CANCELLED_SHARE, SILENT_POWER = 1e-4, 1e-9
"""Channels whose mean has less than this share of their power (-40 dB) cancel each other, unless they are silent (-90
dBFS). Of n independent channels it has 1/n."""
ENDS_UNKNOWN = frozenset({"FLAC", "MP3"})
"""Formats of which the end of a stream is known once it is decoded."""


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
    """Decode a recording in chunks. Yields the samples of `decode` in one or more arrays.

    Memory does not depend on the recording. Raises the errors of `decode` while the chunks are consumed. With
    `keep_prefix` the samples before `corrupt_audio` or `invalid_audio` equal the result for a file of the frames before
    the first one that cannot be decoded, or is not finite.

    Streams that are joined in one file are decoded one after the other, each as a recording of its own. Only then may
    the arrays differ in dtype: `concatenate` takes them.
    """
    yield from Decoding(excerpt, options.of(excerpt)).chunks()


class Decoding:
    """Decoding of one recording, or a part of it, through all its streams.

    Args:
        excerpt: the recording.
        options: properties of the samples.
    """

    def __init__(self, excerpt: Excerpt, options: DecodeOptions) -> None:
        self.options = options
        self.excerpt = excerpt
        self.reader = open_reader(excerpt.audio)
        self.streams = Streams(self.reader)
        self.offset, self.duration = excerpt.offset, excerpt.duration
        """Seconds to skip and to decode, from the beginning of the present stream on."""
        self.seconds = 0.0
        """Seconds of the samples of earlier streams."""
        self.skipped = 0.0
        """Seconds of earlier streams that were skipped."""
        self.number = 0
        self.channels: int | None = None
        """Channels of the first stream."""
        self.damage: AudioError | soundfile.LibsndfileError | None = None
        """Error that ended the frames early, to be raised once they are used."""
        self.missing: str | None = None
        """What a header announced and its stream did not hold."""

    def chunks(self) -> Iterator[Samples]:
        """Yield the samples in chunks."""
        stream: Stream | None = self.streams.at(0)
        while stream is not None:
            self.number += 1
            with self._named():
                stream = yield from self._stream(stream)
        if self.missing and not self.seconds and self.excerpt.duration != 0 and not self.excerpt.offset:
            raise AudioError("corrupt_audio", self.missing)

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Raise errors of later streams with the name of the stream: they are damage of the recording."""
        start = self.streams.last.start
        try:
            yield
        except AudioError as error:
            if self.number == 1 or error.error_type not in ("corrupt_audio", "unsupported_format", "invalid_audio"):
                raise
            kind = "corrupt_audio" if error.error_type == "unsupported_format" else error.error_type
            raise AudioError(kind, f"stream {self.number}, at byte {start:,} of the recording: {error}") from None

    def _stream(self, stream: Stream) -> Generator[Samples, None, Stream | None]:
        """Yield the samples of a stream. Returns the next one."""
        for may_seek in (True, False):
            with ExitStack() as stack:
                found = _Open(stack.enter_context(open_stream(self.reader, self.streams, stream)), stack)
                if not found.go_to(self._first(found.header), may_seek=may_seek):
                    continue  # a failed seek leaves the decoder unusable: reopen and decode up to the part
                while (first := self._first(found.header)) > found.place:
                    following = self._following(found)
                    if following is None and not found.turn():
                        raise self._ends_before(found, first)
                    if following is None or not following.num_given:
                        self.offset = (first - found.place) / found.header.sample_rate
                        self.skipped += found.place / found.header.sample_rate
                        if following is not None:
                            return following
                        found.place = 0
                    else:
                        found.resume(open_stream(self.reader, self.streams, following))
                    found.go_to(self._first(found.header), may_seek=False)
                while True:
                    following = yield from self._samples(found)
                    if following is not None or not found.turn():
                        break
                if self.damage is not None:
                    raise self.damage
            return following
        return None

    def _first(self, header: AudioHeader) -> int:
        self._check(header)
        return _part(header, self.offset, self.duration)[0]

    def _check(self, header: AudioHeader) -> None:
        """Raise if a stream lacks the channel.

        Raises:
            AudioError: `invalid_audio`.
        """
        channel = self.options.channel
        if channel != "mean" and not 0 <= channel < header.channels:
            raise AudioError(
                "invalid_audio", f"{count(header.channels, 'channel')}; expected one with index {channel!r}"
            )
        if self.options.same_channels and self.channels not in (None, header.channels):
            raise AudioError(
                "invalid_audio",
                f"{count(header.channels, 'channel')}; expected {self.channels} as in the first stream, since each "
                'channel is labelled: label their mean by channel="mean"',
            )
        self.channels = self.channels or header.channels

    def _samples(self, found: "_Open") -> Generator[Samples, None, Stream | None]:
        """Yield the wanted samples of an open stream. Returns the next stream, if more samples are wanted."""
        header, options = found.header, self.options
        self._check(header)
        most = _part(header, self.offset, self.duration)[1]
        ending = _Ending()
        dtype = choose_dtype(header, options.channel, options.sample_rate)
        chunks = self._mono(found, dtype, most, ending)
        if header.sample_rate != options.sample_rate:
            chunks = _resample(chunks, header.sample_rate, options.sample_rate)
        for samples, _ in chunks:
            if header.sample_rate != options.sample_rate and header.subtype not in FINITE_SUBTYPES:
                _check_finite(samples, header)  # resampling may overflow though its input is finite
            yield samples
        if ending.cancels:
            raise AudioError(
                "invalid_audio",
                f"{count(header.channels, 'channel')} that cancel each other: their mean is {ending.decibels:.0f} dB "
                "below them, as of a microphone whose wires are swapped; label one by Decode(channel=0), or each by "
                'channel="each"',
            )
        self.offset = 0.0
        self.seconds += ending.num_frames / header.sample_rate
        if self.duration is not None:
            self.duration = (most - ending.num_frames) / header.sample_rate
        return ending.following

    def _mono(
        self, found: "_Open", dtype: Literal["int16", "float32"], most: int, ending: "_Ending"
    ) -> Iterator[tuple[Samples, bool]]:
        """Yield (samples, whether they are the last) until `most` frames are read or the stream ends."""
        header = found.header
        max_frames = (self.options.max_seconds - self.seconds) * header.sample_rate
        rates = math.ceil(self.options.sample_rate / header.sample_rate / 4)
        chunk_frames = max(1, CHUNK_SAMPLES // max(header.channels, rates))
        is_last = False
        while not is_last:
            # libsndfile returns at most the claimed frames, so a small claim saves a read and memory
            left = min(most - ending.num_frames, found.source.frames - found.place)
            num_wanted = max(0, min(chunk_frames, left, math.ceil(max_frames) - ending.num_frames + 1))
            frames, error = found.read(num_wanted, dtype)
            ending.num_frames += len(frames)
            if ending.num_frames > max_frames:
                raise TooLong(self.seconds + ending.num_frames / header.sample_rate, self.options.max_seconds)
            is_last = ending.num_frames >= most
            if not is_last and (error is not None or len(frames) < num_wanted or num_wanted == left):
                is_last = self._is_over(found, error, ending)
            if len(frames) < num_wanted // 2:
                frames = frames.copy()  # a view would keep the buffer that the header's claim sized
            samples = _mix(frames, self.options.channel)
            if self.options.channel == "mean" and header.channels > 1:
                ending.compare(samples, frames)
            if header.subtype not in FINITE_SUBTYPES:
                samples = self._finite(samples, header)
                is_last = is_last or self.damage is not None
            yield samples, is_last

    def _is_over(self, found: "_Open", error: AudioError | soundfile.LibsndfileError | None, ending: "_Ending") -> bool:
        """Return whether a stream ends where its decoder does, and record the next one; else open its rest."""
        following = self._following(found, by_error=error is not None)
        if following is not None and following.num_given:
            found.resume(open_stream(self.reader, self.streams, following))
            return False
        ending.following = following
        if following is None and error is not None:
            if not self.options.keep_prefix:
                raise error
            self.damage = error
        elif following is None:
            self.missing = self.missing or (None if found.place else found.missing(self.streams))
        return True

    def _following(self, found: "_Open", *, by_error: bool = False) -> Stream | None:
        if found.has_turned:
            return None
        following = self.streams.after(found.ended(by_error=by_error))
        if self.reader.error:
            raise self.reader.error
        return following

    def _finite(self, samples: Samples, header: AudioHeader) -> Samples:
        """Return samples that are finite; to keep the prefix of a damaged recording those before the first that is not.

        Raises:
            AudioError: `invalid_audio`, unless the prefix is kept.
        """
        try:
            _check_finite(samples, header)
        except AudioError as error:
            if not self.options.keep_prefix:
                raise
            self.damage = error
            return samples[: int(np.isfinite(samples).argmin())].copy()
        return samples

    def _ends_before(self, found: "_Open", frame: int) -> AudioError:
        seconds = self.skipped + found.place / found.header.sample_rate
        return AudioError(
            "invalid_audio",
            f"the file ends after {seconds:.3f} seconds; expected more than offset={self.excerpt.offset:g}",
        )


@dataclass
class _Ending:
    """How the samples of a stream end."""

    num_frames: int = 0
    following: Stream | None = None
    mixed: float = 0.0
    """Sum of the squares of the mean of the channels."""
    unmixed: float = 0.0
    """Mean over the channels of the sums of their squares."""

    def compare(self, samples: Samples, frames: Samples) -> None:
        """Add the squares of some frames, and of the mean of their channels."""
        flat = frames.reshape(-1)
        with np.errstate(over="ignore", invalid="ignore"):  # huge values cancel nothing, and are checked afterwards
            self.mixed += float(np.dot(samples, samples))
            self.unmixed += float(np.dot(flat, flat)) / frames.shape[1]

    @property
    def cancels(self) -> bool:
        """Whether the channels are not silent, and their mean nearly is."""
        return self.unmixed > SILENT_POWER * self.num_frames and self.mixed < CANCELLED_SHARE * self.unmixed

    @property
    def decibels(self) -> float:
        """Level of the channels above that of their mean, at most that of float32."""
        return 10 * math.log10(self.unmixed / max(self.mixed, 1e-15 * self.unmixed))


class _Open:
    """A stream that is open: the decoder, and the frame that it reads next."""

    def __init__(self, opened: Opened, stack: ExitStack) -> None:
        self._stack = stack
        self._take(opened)
        self.place = 0

    def _take(self, opened: Opened) -> None:
        self.opened, self.source, self.header = opened, opened.source, opened.header

    @property
    def has_turned(self) -> bool:
        """Whether the source goes on with another rate or other channels."""
        return isinstance(self.source, MediaSource) and self.source.has_turned

    def turn(self) -> bool:
        """Go on with another rate or other channels of the source. Returns whether it has them."""
        if not isinstance(self.source, MediaSource) or not self.source.has_turned:
            return False
        self.source.turn()
        self.header = replace(self.header, sample_rate=self.source.samplerate, channels=self.source.channels)
        self.place = 0
        return True

    def resume(self, opening: AbstractContextManager[Opened]) -> None:
        """Go on with another decoder of the same stream."""
        self._take(self._stack.enter_context(opening))
        place, self.place = self.place, 0
        self.go_to(place, may_seek=False)

    def ended(self, *, by_error: bool) -> Ended:
        """Return what the decoder has left of the stream."""
        stream, reader = self.opened.stream, self.source.name if isinstance(self.source, Source) else None
        num_left = reader.num_bytes - min(reader.tell(), reader.num_bytes) if reader is not None else 0
        claimed = self.header.num_frames
        return Ended(stream, self.header.container, num_left, self.place, claimed, by_error)

    def missing(self, streams: Streams) -> str | None:
        """Return what the header announces and the stream does not hold; None if it holds as much."""
        header, announced = self.header, self.opened.stream.announced
        if header.num_frames:
            found = f"announces {header.num_frames / header.sample_rate:.3f} seconds"
        elif announced:
            found = f"announces {count(announced, 'byte')} of samples"
        elif header.container == "OGG" and not streams.is_ended_ogg(self.opened.stream):
            found = "announces a stream, which does not end"
        else:
            return None
        return f"{header.container}: its header {found}, and {count(self.place, 'sample')} follow; expected as many"

    def go_to(self, frame: int, *, may_seek: bool) -> bool:
        """Move to a frame, or to the end before it: by a seek where the format has exact seeks, else by decoding.

        Returns False if the seek failed.
        """
        header = self.header
        if frame == self.place:
            return True
        if frame > self.source.frames and header.container not in ENDS_UNKNOWN:
            self.place = self.source.frames
            return True
        if (
            may_seek
            and self.source.frames >= frame
            and header.subtype in SEEKABLE_SUBTYPES
            and header.container != "OGG"
        ):
            self.place = frame
            try:
                return bool(self.source.seek(frame) == frame)
            except soundfile.LibsndfileError:
                return False
        chunk_frames = max(1, CHUNK_SAMPLES // header.channels)
        while (num_wanted := min(chunk_frames, frame - self.place, self.source.frames - self.place)) > 0:
            frames, error = self.read(num_wanted, "float32")
            if error is not None:
                raise error
            if len(frames) < num_wanted:
                break
        return True

    def read(
        self, num_wanted: int, dtype: Literal["int16", "float32"]
    ) -> tuple[Samples, AudioError | soundfile.LibsndfileError | None]:
        """Return the next frames, (num_frames, channels), fewer at the end or before an error, which is returned."""
        error: AudioError | soundfile.LibsndfileError | None = None
        if isinstance(self.source, MediaSource):
            frames: Samples
            frames, error = self.source.read_to_damage(num_wanted)
        else:
            frames = np.empty((num_wanted, self.source.channels), dtype)
            try:
                frames = cast("Samples", self.source.read(out=frames)) if num_wanted else frames
            except soundfile.LibsndfileError as found:
                error = found
                frames = frames[: max(0, self._decoded_frames() - self.place)]
        self.place += len(frames)
        return frames, error

    def _decoded_frames(self) -> int:
        """Return the frames before an error, which libsndfile counts; those before the read where it cannot."""
        try:
            return int(self.source.tell()) if isinstance(self.source, Source) else self.place
        except soundfile.LibsndfileError:
            return self.place


def _part(header: AudioHeader, offset: float, duration: float | None) -> tuple[int, int]:
    """Return the first frame of a part, and its maximum number of frames."""
    for name, seconds in (("offset", offset), ("duration", duration)):
        if seconds is not None and not 0 <= seconds < math.inf:
            raise AudioError("invalid_audio", f"{name} of {seconds!r} seconds; expected a number from 0 on")
    most = sys.maxsize if duration is None else round(duration * header.sample_rate)
    return round(offset * header.sample_rate), most


def choose_dtype(header: AudioHeader, channel: Channel, sample_rate: int) -> Literal["int16", "float32"]:
    """Return the type of decoded samples: int16 where that loses nothing."""
    is_one_channel = header.channels == 1 or channel != "mean"
    is_lossless = is_one_channel and header.sample_rate == sample_rate and header.subtype in INT16_SUBTYPES
    return "int16" if is_lossless else "float32"


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
        if samples.dtype == np.int16 and chunk.dtype != np.int16:
            samples, first = as_float32(samples[:num_samples]), chunk
        elif samples.dtype != chunk.dtype:
            chunk = as_float32(chunk)
        if samples is first:
            samples = first.copy()  # memory of soxr cannot be resized
        if num_samples + len(chunk) > len(samples):
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
