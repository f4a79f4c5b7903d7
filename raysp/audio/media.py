"""Audio streams of MP4, Matroska, ADTS and ASF, decoded by PyAV (FFmpeg) where it is installed.

The demuxer is named after the first bytes, decoders are on a list, and nothing besides the given bytes is opened:
neither files nor urls that a recording refers to. The delay of the encoder is skipped where the container has it (ADTS
and ASF have no field for it), and the end is that of the stream.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from raysp.audio.container import MEDIA, Opening, describe, unsupported
from raysp.errors import AudioError

if TYPE_CHECKING:
    import av

CODECS = (
    *("aac", "aac_latm", "ac3", "alac", "amrnb", "amrwb", "dca", "eac3", "flac", "mp2", "mp2float", "mp3", "mp3float"),
    *("opus", "pcm_alaw", "pcm_f32le", "pcm_mulaw", "pcm_s16be", "pcm_s16le", "pcm_s24be", "pcm_s24le", "pcm_s32le"),
    *("pcm_u8", "tta", "vorbis", "wavpack", "wmalossless", "wmapro", "wmav1", "wmav2", "wmavoice"),
)
UNBOUNDED = 2**63 - 1
"""Frames of a stream that does not claim its own exactly, as libsndfile reports it."""
_SCALES = {"u8": 2.0**7, "s16": 2.0**15, "s32": 2.0**31}
_OPTIONS = {"codec_whitelist": ",".join(CODECS), "protocol_whitelist": "none", "enable_drefs": "0"}
_GAPLESS = "iTunSMPB"
"""Comment of iTunes: a zero, frames of delay, frames of padding and frames of the stream, in hexadecimal digits."""

Frames = npt.NDArray[np.float32]  # (num_frames, channels)


class SeekableReader(Protocol):
    """A file that reads into buffers, as `source.ByteReader`."""

    def readinto(self, buffer: memoryview) -> int:
        """Copy the next bytes into `buffer`."""
        ...

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move the position and return it."""
        ...

    def tell(self) -> int:
        """Return the position of the next byte."""
        ...


class _File:
    """A reader as the file that PyAV expects."""

    def __init__(self, reader: SeekableReader) -> None:
        self.seek = reader.seek
        self.tell = reader.tell
        self._readinto = reader.readinto

    def read(self, num_bytes: int) -> bytes:
        """Read at most `num_bytes`."""
        data = bytearray(num_bytes)
        return bytes(data[: self._readinto(memoryview(data))])


class MediaSource:
    """The first audio stream of a recording, read sequentially; the attributes are those of `soundfile.SoundFile`.

    Raises:
        AudioError: `unsupported_format` without an audio stream of a supported codec, `corrupt_audio`.
    """

    def __init__(self, media: "av.container.InputContainer", opening: Opening, container: str) -> None:
        self.format = container
        self._opening = opening
        self._media = media
        if not media.streams.audio:
            raise unsupported(opening, f"{container} without an audio stream")
        self._stream = media.streams.audio[0]
        codec: av.AudioCodecContext | None = self._stream.codec_context
        if codec is None or codec.codec.name not in CODECS:
            found = "unknown" if codec is None else repr(codec.codec.name)
            raise unsupported(opening, f"{container}, its codec is {found}")
        codec.thread_count = 1
        self.subtype = codec.codec.name.upper()
        self._held = np.empty((0, codec.channels), np.float32)
        self.samplerate, self.channels = int(codec.sample_rate), int(codec.channels)
        self._first_seconds = 0.0
        """Time of the first packet; negative by the delay of the encoder."""
        self._decoded = self._decode()
        first = next(self._decoded, None)
        if first is not None:  # a decoder may change the rate and channels of the header (HE-AAC)
            self._held, self.samplerate = first
            self.channels = self._held.shape[1]
        self.frames = self._claimed_frames()
        self._left = self.frames
        self._turned: tuple[Frames, int] | None = None

    @property
    def claimed_frames(self) -> int | None:
        """Frames that the header claims, for ordering rows; None without a claim."""
        if self.frames < UNBOUNDED:
            return self.frames
        return None if self._media.duration is None else round(self._media.duration / 1e6 * self.samplerate)

    def _claimed_frames(self) -> int:
        """Return the frames of the stream where its header has them exactly."""
        if self.format != "MP4":
            return UNBOUNDED
        gapless = self._media.metadata.get(_GAPLESS, "").split()
        try:
            return int(gapless[3], 16) or UNBOUNDED
        except (IndexError, ValueError):
            pass
        if not self._stream.duration or self._stream.time_base is None:
            return UNBOUNDED
        return round(self._stream.duration * self._stream.time_base * self.samplerate)

    @property
    def has_turned(self) -> bool:
        """Whether the frames ended where the rate or the number of channels changes."""
        return self._turned is not None

    def turn(self) -> None:
        """Go on with another rate or other channels."""
        assert self._turned is not None
        self._held, self.samplerate = self._turned
        self.channels = self._held.shape[1]
        self._turned = None
        self.frames = self._left = UNBOUNDED

    def seek(self, frame: int) -> int:
        """Return -1: positions are reached by decoding."""
        return -1

    def read(self, num_frames: int, dtype: str = "float32", always_2d: bool = True) -> Frames:
        """Read at most `num_frames` as float32. Fewer are returned only at the end."""
        frames, error = self.read_to_damage(num_frames)
        if error is not None:
            raise error
        return frames

    def read_to_damage(self, num_frames: int) -> tuple[Frames, AudioError | None]:
        """Read at most `num_frames` as float32, fewer at the end or before an error, which is returned beside them."""
        wanted = min(num_frames, self._left)
        parts, num_held = [self._held], len(self._held)
        error: AudioError | None = None
        try:
            while num_held < wanted and not self._turned and (found := next(self._decoded, None)) is not None:
                if (found[0].shape[1], found[1]) != (self.channels, self.samplerate):
                    self._turned = found
                    break
                parts.append(found[0])
                num_held += len(found[0])
        except AudioError as damage:
            error = damage
        whole = np.concatenate(parts)
        self._held = whole[wanted:].copy()
        self._left -= min(wanted, len(whole))
        return whole[:wanted], error

    def _decode(self) -> Iterator[tuple[Frames, int]]:
        """Yield the frames of each packet and their rate. The last ones end where their packet or stream does."""
        last: tuple[Frames, int, float] | None = None
        num_frames = 0
        with _explained(self._corrupt):
            for frame, delay in self._decode_packets():
                if last is not None:
                    num_frames += len(last[0])
                    yield last[:2]
                seconds = float(frame.duration * frame.time_base) if frame.duration and frame.time_base else 0.0
                last = _samples_of(frame)[delay:], int(frame.sample_rate), seconds
        if last is not None:
            samples, rate, seconds = last
            ends = (round(seconds * rate), self._end(rate) - num_frames)
            least = rate // 1000  # times of Matroska are milliseconds
            end = min((one for one in ends if 0 < one < len(samples) - least), default=len(samples))
            yield samples[:end], rate

    def _end(self, rate: int) -> int:
        """Return the frames up to the end that Matroska has, which may be that of another stream; 0 without one."""
        if self.format != "Matroska" or self._media.duration is None:
            return 0
        return round((self._media.duration / 1e6 + min(0.0, self._first_seconds)) * rate)

    def _decode_packets(self) -> "Iterator[tuple[av.AudioFrame, int]]":
        """Yield decoded frames, with the samples to skip.

        A damaged packet is an error, unless the recording ends in it.
        """
        is_cut, is_first = False, True
        for packet in self._media.demux(self._stream):
            if packet.size and is_cut:
                raise self._corrupt("a packet is damaged")
            is_cut = is_cut or packet.is_corrupt
            if packet.pts is not None and packet.time_base:
                self._first_seconds = min(self._first_seconds, float(packet.pts * packet.time_base))
            if not packet.is_corrupt:
                for frame in packet.decode():
                    yield frame, self._remaining_delay(packet, frame) if is_first else 0
                    is_first = False

    def _remaining_delay(self, packet: "av.Packet[av.AudioStream]", frame: "av.AudioFrame") -> int:
        """Return the frames of Opus's pre-skip that FFmpeg has not skipped.

        In Matroska it takes the delay from CodecDelay, which older versions of its own muxer wrote too short. The one
        in the codec's own header (RFC 7845, section 5.1) is right.
        """
        head = self._stream.codec_context.extradata or b""
        if self.subtype not in ("OPUS", "LIBOPUS") or not head.startswith(b"OpusHead") or not packet.duration:
            return 0
        whole = round(float(packet.duration * packet.time_base) * frame.sample_rate)
        return max(0, int.from_bytes(head[10:12], "little") - (whole - frame.samples))

    def _corrupt(self, found: str, error_type: str = "corrupt_audio") -> AudioError:
        message = f"{self.format}: {found}, {describe(self._opening)}; expected a stream without errors"
        return AudioError(error_type, message)


def _samples_of(frame: "av.AudioFrame") -> Frames:
    """Return the samples of a frame as float32, nominally within -1 and 1."""
    values = frame.to_ndarray()
    values = values.T if frame.format.is_planar else values.reshape(-1, frame.layout.nb_channels)
    scale = _SCALES.get(frame.format.packed.name)
    if scale is None:
        return np.ascontiguousarray(values, np.float32)
    # In float64, which holds samples of 32 bits exactly.
    centred = values.astype(np.float64) - (scale if frame.format.packed.name == "u8" else 0.0)
    return (centred / scale).astype(np.float32)


@contextmanager
def open_media(reader: SeekableReader, opening: Opening, container: str) -> Iterator[MediaSource]:
    """Open a recording of one of the containers `MEDIA`.

    Raises:
        AudioError: `unsupported_format` (also if PyAV is not installed), `corrupt_audio`.
    """
    try:
        import av
    except ModuleNotFoundError as error:
        if error.name != "av":  # it is installed, and lacks what it needs
            raise
        raise unsupported(opening, f"{container}, which needs PyAV (pip install 'raysp[av]')") from None

    def corrupt(found: str, error_type: str = "corrupt_audio") -> AudioError:
        return AudioError(error_type, f"{container}: {found}, {describe(opening)}; expected a complete header")

    with _explained(corrupt):
        open_file: Callable[..., av.container.InputContainer] = av.open  # its arguments depend on the release
        media = open_file(_File(reader), "r", format=MEDIA[container], options=_OPTIONS, **_tolerance())
    with media:
        yield MediaSource(media, opening, container)


def _tolerance() -> dict[str, str]:
    """Return the argument of `av.open` for tags that are no UTF-8. From release 19 on, PyAV reads them without it."""
    import av

    return {"metadata_errors": "replace"} if int(av.__version__.partition(".")[0]) < 19 else {}


@contextmanager
def _explained(make_error: Callable[..., AudioError]) -> Iterator[None]:
    import av

    try:
        yield
    except av.error.MemoryError as error:  # also for a size that no recording has
        raise make_error(f"FFmpeg reports {error.strerror!r}", "out_of_memory") from None
    except (av.FFmpegError, ValueError, OverflowError) as error:
        words = getattr(error, "strerror", None) or str(error)
        raise make_error(f"FFmpeg reports {words!r}") from None
