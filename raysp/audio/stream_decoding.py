"""Decoding of a recording to mono samples at one rate. Memory use does not depend on the recording's header."""

import math
import sys
from collections.abc import Generator, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Literal

import numpy as np
import soundfile

from raysp.audio.open_streams import BLOCKS_PER_SECOND, OpenStream, StreamEnding, chunk_frames
from raysp.audio.source import open_reader, open_stream
from raysp.audio.streams import Stream, Streams
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
        """Text on data that a header announced and its stream lacked."""

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
                found = OpenStream(
                    stack.enter_context(open_stream(self.reader, self.streams, stream, by_opus=True)), stack
                )
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

    def _samples(self, found: OpenStream) -> Generator[Samples, None, Stream | None]:
        """Yield the wanted samples of an open stream. Returns the next stream, if more samples are wanted."""
        header, options = found.header, self.options
        self._check(header)
        most = _part(header, self.offset, self.duration)[1]
        ending = StreamEnding(max(1, header.sample_rate // BLOCKS_PER_SECOND))
        dtype = choose_dtype(header, options.channel, options.sample_rate)
        chunks = self._mono(found, dtype, most, ending)
        if header.sample_rate != options.sample_rate:
            chunks = resample(chunks, header.sample_rate, options.sample_rate)
        for samples, _ in chunks:
            if header.sample_rate != options.sample_rate and header.subtype not in FINITE_SUBTYPES:
                check_finite(samples, header)  # resampling may overflow though its input is finite
            yield samples
        if how := ending.cancelled():
            raise AudioError(
                "invalid_audio",
                f"{count(header.channels, 'channel')} that cancel each other: {how}, as of a microphone whose wires "
                'are swapped; label one by Decode(channel=0), or each by channel="each"',
            )
        self.offset = 0.0
        self.seconds += ending.num_frames / header.sample_rate
        if self.duration is not None:
            self.duration = (most - ending.num_frames) / header.sample_rate
        return ending.following

    def _mono(
        self, found: OpenStream, dtype: Literal["int16", "float32"], most: int, ending: StreamEnding
    ) -> Iterator[tuple[Samples, bool]]:
        """Yield (samples, whether they are the last) until `most` frames are read or the stream ends."""
        header = found.header
        max_frames = (self.options.max_seconds - self.seconds) * header.sample_rate
        rates = math.ceil(self.options.sample_rate / header.sample_rate / 4)
        most_frames = chunk_frames(max(header.channels, rates))
        is_last = False
        while not is_last:
            # libsndfile returns at most the claimed frames, so a small claim saves a read and memory
            num_held = 0 if found.opened.stream.is_empty else found.source.frames
            left = min(most - ending.num_frames, num_held - found.place)
            num_wanted = max(0, min(most_frames, left, math.ceil(max_frames) - ending.num_frames + 1))
            frames, error = found.read(num_wanted, dtype)
            ending.num_frames += len(frames)
            if ending.num_frames > max_frames:
                raise TooLong(self.seconds + ending.num_frames / header.sample_rate, self.options.max_seconds)
            is_last = ending.num_frames >= most
            if not is_last and (error is not None or len(frames) < num_wanted or num_wanted == left):
                is_last = self._is_over(found, error, ending)
            if len(frames) < num_wanted // 2:
                frames = frames.copy()  # a view would keep the buffer that the header's claim sized
            samples = mix(frames, self.options.channel)
            if self.options.channel == "mean" and header.channels > 1:
                ending.compare(samples, frames)
            if header.subtype not in FINITE_SUBTYPES:
                samples = self._finite(samples, header)
                is_last = is_last or self.damage is not None
            yield samples, is_last

    def _is_over(
        self, found: OpenStream, error: AudioError | soundfile.LibsndfileError | None, ending: StreamEnding
    ) -> bool:
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

    def _following(self, found: OpenStream, *, by_error: bool = False) -> Stream | None:
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
            check_finite(samples, header)
        except AudioError as error:
            if not self.options.keep_prefix:
                raise
            self.damage = error
            return samples[: int(np.isfinite(samples).argmin())].copy()
        return samples

    def _ends_before(self, found: OpenStream, frame: int) -> AudioError:
        seconds = self.skipped + found.place / found.header.sample_rate
        return AudioError(
            "invalid_audio",
            f"the file ends after {seconds:.3f} seconds; expected more than offset={self.excerpt.offset:g}",
        )


def _part(header: AudioHeader, offset: float, duration: float | None) -> tuple[int, int]:
    """Return the first frame of a part, and its maximum number of frames."""
    for name, seconds in (("offset", offset), ("duration", duration)):
        if seconds is not None and not 0 <= seconds < math.inf:
            raise AudioError("invalid_audio", f"{name} of {seconds!r} seconds; expected a number from 0 on")
    most = sys.maxsize if duration is None else round(duration * header.sample_rate)
    return round(offset * header.sample_rate), most
