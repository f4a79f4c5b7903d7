"""Decoding of a recording to mono samples at one rate. Memory use does not depend on the recording's header."""

import math
import sys
from collections.abc import Generator, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

import numpy as np

from raysp.audio.channel_balance import BLOCKS_PER_SECOND, ChannelBalance
from raysp.audio.joints import following
from raysp.audio.media import MediaStream
from raysp.audio.recording_bytes import RecordingBytes, bytes_of
from raysp.audio.source import Stream, open_stream
from raysp.audio.waveforms import (
    FINITE_SUBTYPES,
    AudioHeader,
    Channel,
    DecodeOptions,
    Excerpt,
    Recording,
    Samples,
    TooLong,
    check_finite,
    choose_dtype,
    join,
    mix,
    resample,
)
from raysp.errors import AudioError
from raysp.words import count

CHUNK_SAMPLES = 1 << 20  # over all channels, 4 MB of float32: most utterances are one chunk, the fastest case


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
    for excerpt in excerpts:
        try:
            yield join(decode_chunks(excerpt, options))
        except (AudioError, TooLong) as error:
            yield error.with_traceback(None)


class OpenStream(NamedTuple):
    """A stream that is kept open."""

    data: RecordingBytes
    stream: MediaStream
    is_open: ExitStack
    """Closes the stream."""


class LastStream:
    """The stream decoded last, kept open for a later part of its recording (`Excerpt.key`).

    Only formats that are decoded from their start have one; others have exact seeks.
    """

    def __init__(self) -> None:
        self._kept: tuple[str, OpenStream] | None = None

    def take(self, excerpt: Excerpt) -> OpenStream | None:
        """Return the stream, at the first frame of a part or before; if it is of another recording, close it."""
        kept, self._kept = self._kept, None
        if kept is None:
            return None
        key, opened = kept
        if key == excerpt.key and 0 <= excerpt.offset < math.inf:
            first = round(excerpt.offset * opened.stream.header.sample_rate)
            if opened.stream.back(max(0, opened.stream.place - first)):
                return opened
        opened.is_open.close()
        return None

    def keep(self, key: str, data: RecordingBytes, stream: MediaStream, is_open: ExitStack) -> None:
        """Keep a stream."""
        self._kept = key, OpenStream(data, stream, is_open.pop_all())


def decode_chunks(excerpt: Excerpt, options: DecodeOptions, last: LastStream | None = None) -> Iterator[Samples]:
    """Decode a recording in chunks. Yields the samples of `decode` in one or more arrays.

    Memory does not depend on the recording. Raises the errors of `decode` while the chunks are consumed. With
    `keep_prefix` the samples before `corrupt_audio` or `invalid_audio` equal the result for a file of the frames before
    the first one that cannot be decoded, or is not finite.

    Streams that are joined in one file are decoded one after the other, each as a recording of its own. Only then may
    the arrays differ in dtype: `concatenate` takes them. A part goes on where the `last` one of the recording ended.
    """
    yield from Decoding(excerpt, options.of(excerpt), last or LastStream()).chunks()


class Decoding:
    """Decoding of one recording, or a part of it, through all its streams.

    Args:
        excerpt: the recording.
        options: properties of the samples.
        last: stream of an earlier part.
    """

    def __init__(self, excerpt: Excerpt, options: DecodeOptions, last: LastStream) -> None:
        self.options = options
        self.last = last
        self.excerpt = excerpt
        self.data = bytes_of(excerpt.audio)
        self.offset, self.duration = excerpt.offset, excerpt.duration
        """Seconds to skip and to decode, from the beginning of the present stream on."""
        self.seconds = 0.0
        """Seconds of the samples of earlier streams."""
        self.skipped = 0.0
        """Seconds of earlier streams that were skipped."""
        self.number = 0
        self.turned = False
        """Whether the rate or the number of channels of a stream changed."""
        self.channels: int | None = None
        """Channels of the first stream."""
        self.damage: AudioError | None = None
        """Error that ended the frames early, to be raised once they are used."""
        self.missing: str | None = None
        """Text on data that a header announced and its stream lacked."""

    def chunks(self) -> Iterator[Samples]:
        """Yield the samples in chunks."""
        place: int | None = 0
        while place is not None:
            self.number += 1
            with self._named(place):
                behind = yield from self._stream(place)
                if behind is not None and behind <= place:
                    raise AudioError(
                        "corrupt_audio", f"frames that begin at byte {place:,} do not decode; expected audio"
                    )
            place = behind
        if self.missing and not self.seconds and self.excerpt.duration != 0 and not self.excerpt.offset:
            raise AudioError("corrupt_audio", self.missing)

    @contextmanager
    def _named(self, place: int) -> Iterator[None]:
        """Raise errors of later streams with the name of the stream: they are damage of the recording."""
        try:
            yield
        except AudioError as error:
            if self.number == 1 or error.error_type not in ("corrupt_audio", "unsupported_format", "invalid_audio"):
                raise
            kind = "corrupt_audio" if error.error_type == "unsupported_format" else error.error_type
            raise AudioError(kind, f"stream {self.number}, at byte {place:,} of the recording: {error}") from None

    def _stream(self, place: int) -> Generator[Samples, None, int | None]:
        """Yield the wanted samples of the stream at a place. Returns the place of the next one, if more are wanted."""
        with self._opened(place) as (stream, is_open):
            while True:
                is_whole = yield from self._part(stream)
                if not is_whole or not stream.has_turned:
                    break
                stream.turn()
                self.turned = True
            if self.damage is not None:
                raise self.damage
            if not is_whole:
                self._keep(stream, is_open)
                return None
            self._note_missing(stream)
            return following(self.data, stream.end_place(), stream.header.container)

    @contextmanager
    def _opened(self, place: int) -> Iterator[tuple[Stream, ExitStack]]:
        """Yield the stream at a place, and what closes it at the end unless it is kept."""
        kept = self.last.take(self.excerpt) if place == 0 else None
        with kept.is_open if kept else ExitStack() as is_open:
            stream: Stream
            if kept is None:
                stream = is_open.enter_context(open_stream(self.data, place))
            else:
                self.data, stream = kept.data, kept.stream
            yield stream, is_open

    def _keep(self, stream: Stream, is_open: ExitStack) -> None:
        """Keep the first stream open for the next part of the recording."""
        is_sound = self.number == 1 and not self.turned and stream.num_left and not self.data.error
        if self.excerpt.key is not None and is_sound and isinstance(stream, MediaStream):
            self.last.keep(self.excerpt.key, self.data, stream, is_open)

    def _part(self, stream: Stream) -> Generator[Samples, None, bool]:
        """Yield the wanted samples of one rate and number of channels. Returns whether more of them may follow."""
        header = stream.header
        self._check(header)
        first, most = _part(header, self.offset, self.duration)
        if first > stream.place:
            stream.skip(first - stream.place)
        if stream.place < first:
            self.offset = (first - stream.place) / header.sample_rate
            self.skipped += stream.place / header.sample_rate
            if not stream.has_turned and following(self.data, stream.end_place(), stream.header.container) is None:
                raise self._ends_before()
            return True
        return (yield from self._samples(stream, header, most))

    def _note_missing(self, stream: Stream) -> None:
        if not stream.place and not self.missing and (shortfall := stream.missing()):
            follow = f"and {count(stream.place, 'sample')} follow; expected as many"
            self.missing = f"{stream.header.container}: its header {shortfall}, {follow}"

    def _check(self, header: AudioHeader) -> None:
        """Raise AudioError if a stream lacks the channel."""
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

    def _samples(self, stream: Stream, header: AudioHeader, most: int) -> Generator[Samples, None, bool]:
        """Yield at most a number of frames as samples. Returns whether the stream ended before."""
        options = self.options
        balance = ChannelBalance(max(1, header.sample_rate // BLOCKS_PER_SECOND))
        chunks = self._mono(stream, header, most, balance)
        if header.sample_rate != options.sample_rate:
            chunks = resample(chunks, header.sample_rate, options.sample_rate)
        for samples, _ in chunks:
            if header.sample_rate != options.sample_rate and header.subtype not in FINITE_SUBTYPES:
                check_finite(samples, header)  # resampling may overflow though its input is finite
            yield samples
        if how := balance.cancelled():
            raise AudioError(
                "invalid_audio",
                f"{count(header.channels, 'channel')} that cancel each other: {how}, as of a microphone whose wires "
                'are swapped; label one by Decode(channel=0), or each by channel="each"',
            )
        self.offset = 0.0
        self.seconds += balance.num_frames / header.sample_rate
        if self.duration is not None:
            self.duration = (most - balance.num_frames) / header.sample_rate
        return balance.num_frames < most and self.damage is None

    def _mono(
        self, stream: Stream, header: AudioHeader, most: int, balance: ChannelBalance
    ) -> Iterator[tuple[Samples, bool]]:
        """Yield (samples, whether they are the last) until `most` frames are read or the stream ends."""
        dtype = choose_dtype(header, self.options.channel, self.options.sample_rate)
        max_frames = (self.options.max_seconds - self.seconds) * header.sample_rate
        rates = math.ceil(self.options.sample_rate / header.sample_rate / 4)
        most_frames = max(1, CHUNK_SAMPLES // max(header.channels, rates))
        is_last = False
        while not is_last:
            # A decoder returns at most the claimed frames, so a small claim saves a read and memory
            left = min(most - balance.num_frames, stream.num_left)
            num_wanted = max(0, min(most_frames, left, math.ceil(max_frames) - balance.num_frames + 1))
            frames, error = stream.read(num_wanted, dtype)
            balance.num_frames += len(frames)
            num_silent = stream.num_silent if most == sys.maxsize else 0
            if balance.num_frames + num_silent > max_frames:
                raise TooLong(self.seconds + balance.num_frames / header.sample_rate, self.options.max_seconds)
            is_last = balance.num_frames >= most or len(frames) < num_wanted or num_wanted == left or error is not None
            if error is not None and balance.num_frames < most:
                if not self.options.keep_prefix:
                    raise error
                self.damage = error
            if len(frames) < num_wanted // 2:
                frames = frames.copy()  # a view would keep the buffer that the header's claim sized
            samples = mix(frames, self.options.channel)
            if self.options.channel == "mean" and header.channels > 1:
                balance.compare(samples, frames)
            if header.subtype not in FINITE_SUBTYPES:
                samples = self._finite(samples, header)
                is_last = is_last or self.damage is not None
            yield samples, is_last

    def _finite(self, samples: Samples, header: AudioHeader) -> Samples:
        """Return samples that are finite; to keep the prefix of a damaged recording those before the first that is not.

        Raises:
            AudioError: `invalid_audio`, unless the prefix is kept.
        """
        try:
            check_finite(samples, header)
        except AudioError as error:
            if not self.options.keep_prefix:
                raise
            self.damage = error
            return samples[: int(np.isfinite(samples).argmin())].copy()
        return samples

    def _ends_before(self) -> AudioError:
        return AudioError(
            "invalid_audio",
            f"the file ends after {self.skipped:.3f} seconds; expected more than offset={self.excerpt.offset:g}",
        )


def _part(header: AudioHeader, offset: float, duration: float | None) -> tuple[int, int]:
    """Return the first frame of a part, and its maximum number of frames."""
    for name, seconds in (("offset", offset), ("duration", duration)):
        if seconds is not None and not 0 <= seconds < math.inf:
            raise AudioError("invalid_audio", f"{name} of {seconds!r} seconds; expected a number from 0 on")
    most = sys.maxsize if duration is None else round(duration * header.sample_rate)
    return round(offset * header.sample_rate), most
