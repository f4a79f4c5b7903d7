"""A stream that is open: the decoder that reads it, the frame that it reads next, and how its samples end."""

import math
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace
from typing import Literal, cast

import numpy as np
import numpy.typing as npt
import soundfile

from raysp.audio.media import MediaSource
from raysp.audio.opus import OpusSource
from raysp.audio.source import Opened, Source
from raysp.audio.streams import Ended, Stream, Streams
from raysp.audio.waveforms import Samples
from raysp.errors import AudioError
from raysp.words import count

CHUNK_SAMPLES = 1 << 20  # over all channels, 4 MB of float32: most utterances are one chunk, the fastest case
# A seek in these gives the same frames as decoding up to the position, bit for bit. In predictive codecs it does not.
SEEKABLE_SUBTYPES = frozenset({"PCM_16", "PCM_S8", "PCM_U8", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"})
CANCELLED_SHARE, SILENT_POWER = 1e-4, 1e-9
"""Channels whose mean has less than this share of their power (-40 dB) cancel each other, unless they are silent (-90
dBFS). Of n independent channels it has 1/n."""
BLOCKS_PER_SECOND = 4
AUDIBLE_POWER, LOST_SHARE = 1e-6, 0.05
"""A second of blocks above -60 dBFS that cancel, with so much of the power of a stream, is sound that is lost. Noise of
lossy coding may cancel in pauses, at lower levels."""
ROUNDING = 1e-5
"""Share of the power of a block below which what remains without its offset is not certain in float32."""
ENDS_UNKNOWN = frozenset({"FLAC", "MP3"})
"""Formats of which the end of a stream is known once it is decoded."""


@dataclass
class _Block:
    """Sums over the frames of a block; offsets from zero, which every recorder has, are not audio."""

    num_frames: int = 0
    mixed: float = 0.0
    unmixed: float = 0.0
    sum_mixed: float = 0.0
    sums: "npt.NDArray[np.float64] | float" = 0.0  # (channels,)

    def add(self, samples: Samples, frames: Samples) -> None:
        """Add some frames, (num_frames, channels), and the mean of their channels."""
        flat = frames.reshape(-1)
        self.num_frames += len(samples)
        self.mixed += float(np.dot(samples, samples))
        self.unmixed += float(np.dot(flat, flat)) / frames.shape[1]
        self.sum_mixed += float(samples.sum(dtype=np.float64))
        self.sums = self.sums + frames.sum(0, dtype=np.float64)

    def powers(self) -> tuple[float, float]:
        """Return the sums of the squares of the mean of the channels, and of the channels, without their offsets."""
        offsets = float(np.mean(np.square(self.sums))) / self.num_frames
        mixed, unmixed = self.mixed - self.sum_mixed**2 / self.num_frames, self.unmixed - offsets
        # What is left of a large offset may be an error of rounding.
        return mixed, unmixed if unmixed > ROUNDING * self.unmixed else mixed


@dataclass
class StreamEnding:
    """How the samples of a stream end, and where its channels cancel each other."""

    block_frames: int = 1
    num_frames: int = 0
    following: Stream | None = None
    mixed: float = 0.0
    """Sum of the squares of the mean of the channels, in each block without its offset from zero."""
    unmixed: float = 0.0
    """Mean over the channels of the sums of their squares, likewise."""
    lost: float = 0.0
    """Part of `unmixed` in blocks whose channels cancel each other."""
    num_lost: int = 0
    """Number of these blocks."""
    _block: _Block = field(default_factory=_Block)
    """The block that is not complete."""

    def compare(self, samples: Samples, frames: Samples) -> None:
        """Add some frames, and the mean of their channels."""
        place = 0
        with np.errstate(over="ignore", invalid="ignore"):  # huge values cancel nothing, and are checked afterwards
            while place < len(samples):
                end = min(place + self.block_frames - self._block.num_frames, len(samples))
                self._block.add(samples[place:end], frames[place:end])
                place = end
                if self._block.num_frames == self.block_frames:
                    self._end_block()

    def _end_block(self) -> None:
        mixed, unmixed = self._add_block()
        if unmixed > AUDIBLE_POWER * self.block_frames and mixed < CANCELLED_SHARE * unmixed:
            self.lost, self.num_lost = self.lost + unmixed, self.num_lost + 1

    def _add_block(self) -> tuple[float, float]:
        """Add the powers of the block to those of the stream, begin another one, and return them."""
        mixed, unmixed = self._block.powers()
        self.mixed, self.unmixed, self._block = self.mixed + mixed, self.unmixed + unmixed, _Block()
        return mixed, unmixed

    def cancelled(self) -> str:
        """Return a message if channels cancel each other; empty if not, or if they are silent. No frame may follow."""
        if self._block.num_frames:
            self._add_block()
        if self.unmixed > SILENT_POWER * self.num_frames and self.mixed < CANCELLED_SHARE * self.unmixed:
            return f"their mean is {self._decibels:.0f} dB below them"
        if self.num_lost >= BLOCKS_PER_SECOND and self.lost >= LOST_SHARE * self.unmixed:
            return f"their mean is silent in {self.num_lost / BLOCKS_PER_SECOND:.1f} seconds of sound"
        return ""

    @property
    def _decibels(self) -> float:
        """Level of the channels above that of their mean, at most that of float32."""
        return 10 * math.log10(self.unmixed / max(self.mixed, 1e-15 * self.unmixed))


class OpenStream:
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
        """Return the part of the stream that the decoder has not read."""
        stream, reader = self.opened.stream, self.source.name if isinstance(self.source, Source) else None
        num_left = reader.num_bytes - min(reader.tell(), reader.num_bytes) if reader is not None else 0
        claimed = self.header.num_frames
        return Ended(stream, self.header.container, num_left, self.place, claimed, by_error)

    def missing(self, streams: Streams) -> str | None:
        """Return a message on data that the header announces and the stream lacks; None if it is complete."""
        header, announced = self.header, self.opened.stream.announced
        if announced:
            found = f"announces {count(announced, 'byte')} of samples"
        elif header.num_frames:
            found = f"announces {header.num_frames / header.sample_rate:.3f} seconds"
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
            and not isinstance(self.source, OpusSource)
            and self.source.frames >= frame
            and header.subtype in SEEKABLE_SUBTYPES
            and header.container != "OGG"
        ):
            self.place = frame
            try:
                return bool(self.source.seek(frame) == frame)
            except soundfile.LibsndfileError:
                return False
        most = chunk_frames(header.channels)
        while (num_wanted := min(most, frame - self.place, self.source.frames - self.place)) > 0:
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
        frames: Samples
        if isinstance(self.source, OpusSource):
            return self._read_opus(self.source, num_wanted, dtype)
        if isinstance(self.source, MediaSource):
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

    def _read_opus(
        self, source: OpusSource, num_wanted: int, dtype: Literal["int16", "float32"]
    ) -> tuple[Samples, AudioError | soundfile.LibsndfileError | None]:
        """Return the next frames as `read`; behind the place where PyAV gives up they are those of libsndfile."""
        frames = source.read(num_wanted)
        self.place += len(frames)
        if not source.has_given_up:
            return frames, None
        self.resume(self.opened.again())
        rest, error = self.read(num_wanted - len(frames), dtype)
        return np.concatenate([frames, rest]), error

    def _decoded_frames(self) -> int:
        """Return the frames before an error, which libsndfile counts; those before the read where it cannot."""
        try:
            return int(self.source.tell()) if isinstance(self.source, Source) else self.place
        except soundfile.LibsndfileError:
            return self.place


def chunk_frames(num_values: int) -> int:
    """Return the frames that are decoded at once, by the number of values that each of them takes."""
    return max(1, CHUNK_SAMPLES // num_values)
