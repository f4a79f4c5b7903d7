"""Streams that PyAV (FFmpeg) reads: MP3, Ogg, ADTS, MP4, Matroska, ASF, and some codecs in WAV.

The demuxer is named after the first bytes, decoders are on a list, and nothing besides the bytes of the recording is
opened: neither files nor urls that it refers to. Samples stand where the times of their packets place them, with
silence where nothing was sent. The clock begins with the first stream of the container, in MP4 with its film. The delay
of the encoder is skipped where the container has it (ADTS and ASF have no field for it).
"""

import math
import re
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any, Literal

import av
import numpy as np

from raysp.audio.av_files import RESTARTS, SeekableFile, SequentialFile
from raysp.audio.codecs import CODECS, Frames, libopus, samples_of
from raysp.audio.container import FALLBACKS, MEDIA, Opening, describe, sniff, unsupported
from raysp.audio.elements import (
    bytes_behind_packets,
    end_of_elements,
    frames_of_one_page,
    lost_page,
    page_end,
    page_lost_before,
    seconds_of_film,
)
from raysp.audio.recording_bytes import (
    BEGINNING,
    Reader,
    RecordingBytes,
    skip_tags,
    skip_zeros,
    strip_tags,
)
from raysp.audio.waveforms import AudioHeader
from raysp.errors import AudioError

if TYPE_CHECKING:
    from av.container import InputContainer

UNBOUNDED = 2**63 - 1
"""Frames of a stream that does not claim its own exactly."""
GAP_SECONDS = 0.1
"""Least time without packets that becomes silence. Below it times of packets are rounded or jitter."""
SILENCE_FRAMES = 1 << 18
"""Frames of silence that are made at once."""
FRAMED = frozenset({"MP3", "AAC"})
"""Streams of frames without a container: a decoder goes on after damage."""
FIXED_BITS = {"MP3": 0xFFFE0C, "AAC": 0xFFFEFC}
"""Bits of the first three bytes of a frame that a stream has in all of them: version, layer or profile, and rate."""
FRAME_HEAD_BYTES = 16
"""Bytes by which a frame is found again in the recording."""
MOST_SKIPPED_BYTES = 1024
"""Most bytes between or in damaged frames that are not an error."""
MOST_BYTES_BEHIND = 64
"""Most bytes after the last packet of Matroska that belong to no packet."""
MOST_OGG_SECONDS = 0.3
"""Most seconds of a packet of Ogg."""
MOST_OF_PACKET = 4608
"""Most frames of a packet of most codecs."""
MOST_PADDING = 2 * 1152
"""Most samples that encoders of MP3 add; a count that lacks more is wrong."""
SKIP_MANUAL = int(av.codec.context.Flags2.skip_manual)
"""Flag of a decoder that returns all frames, also those that the demuxer wants to be skipped."""
HELD_FRAMES = 5
"""Frames of MP3 that are held back, since the padding at its end may be so long."""
SYNC = re.compile(rb"\xff[\xe2-\xff]")
LARGEST_FRAME_BYTES = 2881
COUNTING = re.compile(rb"Xing|Info|VBRI")
"""Pattern of the first frame of an MP3 if it counts the other frames; its samples are silence."""
SUBTYPES = {"mp3": "MPEG_LAYER_III", "mp3float": "MPEG_LAYER_III", "mp2": "MPEG_LAYER_II", "libopus": "OPUS"}
_OPTIONS = {"codec_whitelist": ",".join(CODECS), "protocol_whitelist": "none", "enable_drefs": "0"}
_GAPLESS = "iTunSMPB"
"""Comment of iTunes: a zero, frames of delay, frames of padding and frames of the stream, in hexadecimal digits."""


class MediaStream:
    """The audio track of a recording, read sequentially.

    Raises:
        AudioError: `unsupported_format` without one audio track of a supported codec, `corrupt_audio`.
    """

    def __init__(
        self,
        media: "InputContainer",
        file: "SequentialFile | SeekableFile",
        data: RecordingBytes,
        start: int,
        opening: Opening,
        container: str,
        *,
        may_be_joined: bool,
    ) -> None:
        self._media, self._file, self._data, self._start = media, file, data, start
        self._opening, self._container = opening, container
        self._may_be_joined = may_be_joined and container == "MP3"
        tracks = media.streams.audio
        if not tracks:
            raise unsupported(opening, f"{container} without an audio stream")
        if len(tracks) > 1:
            fault = f"{container} with {len(tracks)} audio tracks, each of which may hold speech"
            raise AudioError(
                "unsupported_format", f"{fault}, {describe(opening)}; expected one: extract it (ffmpeg -map 0:a:0)"
            )
        self._track = tracks[0]
        context: av.AudioCodecContext | None = self._track.codec_context
        if context is None or context.codec.name not in CODECS:
            codec = "unknown" if context is None else repr(context.codec.name)
            raise unsupported(opening, f"{container}, its codec is {codec}")
        self._decoder = libopus(context) if context.codec.name == "opus" else context
        self._decoder.thread_count = 1
        name = context.codec.name
        self._subtype = SUBTYPES.get(name, name.upper())
        self._rate, self._channels = int(context.sample_rate), int(context.channels)
        self._held: Frames = np.empty((0, self._channels), np.float32)
        self._index, self._unit = self._track.index, float(self._track.time_base or 0)
        """Number of the track, and seconds of a unit of its times."""
        self._zero: float | None = None
        """Time in the container at which the recording begins."""
        self._seconds = 0.0
        """Seconds of the frames so far."""
        self._reached = 0
        """Place in the file after the packets so far, for streams of frames."""
        self._skipped = self._failed = self._num_packets = 0
        """Bytes that are no frames, or do not decode; the latter of those up to here; packets."""
        self._key = 0
        """The bits that all frames of a stream without a container begin with."""
        self._delay = 0.0
        """Time of the first packet where that is negative, by the delay of the encoder."""
        self._packet_start, self._packet_end = math.inf, 0.0
        """Times of the first packet and of the end of the last one."""
        self._last = self._longest = 0.0
        """Time of the end of the packets of all tracks that are read, and most seconds of one of the stream."""
        self._first_place = data.num_bytes
        self._last_places = (start, start)
        """Places of the first packet and the last two, of an Ogg those of their pages."""
        self._joint: int | None = None
        """Place of another stream that the demuxer would take for a part of this one."""
        self._undecoded: int | None = None
        """Place of the packets at the end that do not decode."""
        self.num_silent = 0
        """Frames of silence that follow at least."""
        self._end, self._is_fragmented = end_of_elements(data, start, container)
        self._page_frames = frames_of_one_page(data, start) if name == "vorbis" and container == "OGG" else None
        """Frames of Vorbis in one page, whose times FFmpeg counts from the first block, which has no frames."""
        if self._page_frames is not None:
            self._decoder.flags2 |= SKIP_MANUAL
        self._decoded = self._decode()
        first = next(self._decoded, None)
        if first is not None:  # a decoder may change the rate and channels of the header (HE-AAC)
            self._held, self._rate = first
            self._channels = self._held.shape[1]
        if not self._rate or not self._channels:
            raise self._corrupt("no frame decodes")
        self._left = self._claimed_frames()
        self._turned: tuple[Frames, int] | None = None
        self._before: Frames = self._held[:0]
        """Frames before the present place, at most a second of those that were read last."""
        self.place = 0

    @property
    def header(self) -> AudioHeader:
        """Header of the stream."""
        claimed: int | None = self._claimed_frames()
        if claimed == UNBOUNDED:
            claimed = None if self._media.duration is None else round(self._media.duration / 1e6 * self._rate)
        return AudioHeader(self._rate, self._channels, claimed, self._container, self._subtype, self._opening.num_bytes)

    @property
    def num_left(self) -> int:
        """Upper bound of the frames that follow, as far as it is known."""
        return self._left

    def _claimed_frames(self) -> int:
        """Return the frames of the stream where its header has them exactly."""
        if self._page_frames is not None:
            return self._page_frames
        if self._container != "MP4":
            return UNBOUNDED
        gapless = self._media.metadata.get(_GAPLESS, "").split()
        try:
            return int(gapless[3], 16) or UNBOUNDED
        except (IndexError, ValueError):
            pass
        if not self._track.duration or self._track.time_base is None:
            return UNBOUNDED
        late = max(0.0, float((self._track.start_time or 0) * self._track.time_base) - (self._zero or 0.0))
        return round((float(self._track.duration * self._track.time_base) + late) * self._rate)

    @property
    def has_turned(self) -> bool:
        """Whether the frames ended where the rate or the number of channels changes."""
        return self._turned is not None

    def turn(self) -> None:
        """Go on with another rate or other channels."""
        assert self._turned is not None
        self._held, self._rate = self._turned
        self._channels = self._held.shape[1]
        self._turned = None
        self._left, self.place = UNBOUNDED, 0

    def skip(self, num_frames: int) -> None:
        """Skip frames by decoding them, or all up to the end."""
        target = self.place + num_frames
        while (num_wanted := min(SILENCE_FRAMES, target - self.place)) > 0:
            frames, error = self.read(num_wanted)
            if error is not None:
                raise error
            if len(frames) < num_wanted:
                return

    def back(self, num_frames: int) -> bool:
        """Return to a frame that was read before. Returns False without a change if it is no longer held."""
        if num_frames > len(self._before):
            return False
        kept = len(self._before) - num_frames
        self._held = np.concatenate([self._before[kept:], self._held])
        self._before = self._before[:kept]
        self._left += num_frames
        self.place -= num_frames
        return True

    def read(self, num_wanted: int, dtype: Literal["int16", "float32"] = "float32") -> tuple[Frames, AudioError | None]:
        """Return the next frames, (num_frames, channels), fewer at the end or before an error, which is returned."""
        num_frames = min(num_wanted, self._left)
        parts, num_held = [self._held], len(self._held)
        error: AudioError | None = None
        try:
            while num_held < num_frames and not self._turned and (decoded := next(self._decoded, None)) is not None:
                if (decoded[0].shape[1], decoded[1]) != (self._channels, self._rate):
                    self._turned = decoded
                    break
                parts.append(decoded[0])
                num_held += len(decoded[0])
        except AudioError as damage:
            error = damage
        whole = np.concatenate(parts) if len(parts) > 1 else parts[0]
        self._held = whole[num_frames:].copy()
        self._before = whole[max(0, num_frames - self._rate) : num_frames].copy()
        self._left -= min(num_frames, len(whole))
        self.place += min(num_frames, len(whole))
        if error is None and not self._left and not self._turned and self._container == "MP4":
            error = self._excess()
        return whole[:num_frames], error

    def _excess(self) -> AudioError | None:
        """Return the error of a stream of more frames than its header claims, by decoding its end."""
        num_frames = largest = len(self._held)
        try:
            for frames, _ in self._decoded:
                num_frames, largest = num_frames + len(frames), max(largest, len(frames))
        except AudioError as error:
            return error
        if (
            num_frames <= max(2 * min(largest, MOST_OF_PACKET), GAP_SECONDS * self._rate)
            or _GAPLESS in self._media.metadata
        ):
            return None
        return self._corrupt(f"{num_frames:,} frames follow those that its header announces")

    def _shortfall(self, *, is_decoded: bool) -> str | None:
        """Return a message on seconds that the header announces and the packets lack."""
        if self._container == "OGG" and len(self._media.streams) == 1:
            # The last packet of Vorbis lasts up to the granule position of its page, also after lost packets.
            end = self._seconds + max(0.0, self._packet_start) if is_decoded else self._last
            rate = 48_000 if self._subtype == "OPUS" else self._rate
            least = round((GAP_SECONDS + min(self._longest, MOST_OGG_SECONDS)) * rate)
            packets, data_end = (self._first_place, *self._last_places), min(self._file.end, self._data.num_bytes)
            lost = lost_page(self._data, self._start, data_end, packets, least)
            if lost is None and math.isfinite(end):
                lost = page_lost_before(self._data, self._last_places, round(end * rate) + least)
            return None if lost is None else f"the page at byte {lost:,} is damaged"
        announced: float | None = None
        if self._container == "MP4" and not self._is_fragmented:
            announced = seconds_of_film(self._data, self._start, self._end or self._data.num_bytes)
        elif self._container == "Matroska" and self._media.duration is not None:
            announced = self._media.duration / 1e6
        if announced is None or announced - max(self._last, self._seconds) <= GAP_SECONDS + self._longest:
            return None
        if self._container == "Matroska":  # programs that add a duration to live streams may announce too much
            behind = bytes_behind_packets(self._data, self._start, self._reached)
            if behind <= MOST_BYTES_BEHIND:
                return None
        return f"its header announces {announced:.3f} seconds, and its packets end at {self._last:.3f}"

    def _decode(self) -> Iterator[tuple[Frames, int]]:
        """Yield frames and their rate, and silence between them, up to the end of the last packet or of the stream."""
        buffer: deque[tuple[Frames, int]] = deque()
        num_held = HELD_FRAMES if self._container == "MP3" else 1
        num_frames, seconds = 0, 0.0
        with _explained(self._corrupt):
            for frame, delay in self._decode_packets():
                samples, rate = samples_of(frame)[delay:], int(frame.sample_rate)
                gap = self._gap(frame)
                for part in (samples,) if gap <= GAP_SECONDS else chain(self._silence(gap, samples, rate), (samples,)):
                    buffer.append((part, rate))
                    while len(buffer) > num_held:
                        num_frames += len(buffer[0][0])
                        yield buffer.popleft()
                self._seconds += len(samples) / rate
                seconds = (frame.duration or 0) * self._unit
            num_frames += sum(len(samples) for samples, _ in buffer)
            excess = self._padding(num_frames, len(buffer[-1][0]), seconds, buffer[-1][1]) if buffer else 0
        while buffer:
            samples, rate = buffer.popleft()
            num_cut = max(0, min(len(samples), excess - sum(len(later) for later, _ in buffer)))
            yield samples[: len(samples) - num_cut], rate
        if num_frames and (fault := self._shortfall(is_decoded=True)) is not None:
            raise self._corrupt(fault)

    def _padding(self, num_frames: int, num_last: int, seconds: float, rate: int) -> int:
        """Return the number of padding frames at the end; `num_last` and `seconds` are those of the last packet."""
        if self._page_frames is not None:
            return 0
        least = rate // 1000  # times of Matroska are milliseconds
        if self._container == "Matroska" and self._media.duration is not None:  # another stream may end later
            end = round((self._media.duration / 1e6 + self._delay) * rate)
        elif self._may_be_joined and self._track.start_time and self.end_place() < self._data.num_bytes:
            # FFmpeg does not believe the count of the first frame where more follows than its stream.
            end = strip_tags(self._data, self._start, self.end_place())
            with open_media(self._data, self._start, self._opening, "MP3", end=end, seekable=True) as alone:
                excess = num_frames - (alone.header.num_frames or num_frames)
                return excess if 0 < excess <= MOST_PADDING else 0
        else:
            end = 0
        surplus = [num_last - round(seconds * rate)] if seconds else []
        surplus += [num_frames - end] if end else []
        return max((frames for frames in surplus if least < frames < num_last), default=0)

    def _gap(self, frame: "av.AudioFrame") -> float:
        """Return the seconds between the end of the frames so far and the time of a frame."""
        if frame.pts is None or self._container in FRAMED:
            return 0.0
        time = frame.pts * self._unit
        if self._zero is None:
            start = self._media.start_time / 1e6 if len(self._media.streams) > 1 else time
            self._zero = 0.0 if self._container == "MP4" and not self._is_fragmented else min(time, start)
        return time - self._zero - self._seconds

    def _silence(self, seconds: float, samples: Frames, rate: int) -> Iterator[Frames]:
        """Yield silence with the channels of some samples."""
        self.num_silent = round(seconds * rate)
        self._seconds += seconds
        while self.num_silent > 0:
            num_frames = min(self.num_silent, SILENCE_FRAMES)
            self.num_silent -= num_frames
            yield np.zeros((num_frames, samples.shape[1]), np.float32)

    def _decode_packets(self) -> "Iterator[tuple[av.AudioFrame, int]]":
        """Yield decoded frames, with the samples to skip.

        A damaged packet is an error, unless the recording ends in it, or frames follow without a container.
        """
        is_cut, is_first = False, True
        for packet in self._packets():
            if packet.size and is_cut:
                raise self._corrupt("a packet is damaged")
            is_cut = is_cut or packet.is_corrupt
            if packet.is_corrupt and not self._subtype.startswith("PCM"):
                continue
            frames = self._frames_of(packet)
            if self._page_frames is not None and self._num_packets == 1:
                continue
            for frame in frames:
                yield frame, self._remaining_delay(packet, frame) if is_first else 0
                is_first = False

    def _frames_of(self, packet: "av.Packet[Any]") -> "list[av.AudioFrame]":
        try:
            frames = list(self._decoder.decode(packet))
        except av.FFmpegError as error:
            if self._container not in FRAMED or isinstance(error, av.error.MemoryError):
                raise
            self._failed += packet.size
            self._undecoded = self._reached - packet.size if self._undecoded is None else self._undecoded
            return []
        if frames and packet.size:
            self._skipped, self._failed, self._undecoded = self._skipped + self._failed, 0, None
            if self._skipped > MOST_SKIPPED_BYTES:
                raise self._corrupt(f"{self._skipped:,} bytes before byte {self._reached:,} do not decode")
        return frames

    def _packets(self) -> "Iterator[av.Packet[Any]]":
        """Yield the packets of the track, up to a joint with another stream of frames."""
        for packet in self._demuxed():
            if packet.size and packet.pos is not None:
                place = self._start + packet.pos
                if self._container in FRAMED:
                    head = bytes(memoryview(packet)[:FRAME_HEAD_BYTES])
                    place = self._place_of(head, place)
                    if not self._follows(packet, head, place):
                        return
                self._reached = max(self._reached, place + (0 if self._container == "OGG" else packet.size))
                self._num_packets += 1
            if packet.stream_index == self._index:
                if packet.pts is not None:
                    start = packet.pts * self._unit
                    self._delay = min(self._delay, start)
                    self._packet_start = min(self._packet_start, max(0.0, start))
                    self._packet_end = max(self._packet_end, start + (packet.duration or 0) * self._unit)
                yield packet

    def _demuxed(self) -> "Iterator[av.Packet[Any]]":
        """Yield the packets of all tracks, of formats whose places matter, else those of the track."""
        packets = self._media.demux() if self._container in RESTARTS else self._media.demux(self._track)
        try:
            for packet in packets:
                if packet.pts is not None and packet.size:
                    place = self._start + (packet.pos or 0)
                    self._first_place = min(self._first_place, place)
                    if place > self._last_places[1]:
                        self._last_places = (self._last_places[1], place)
                    length = float((packet.duration or 0) * packet.time_base)
                    self._last = max(self._last, float(packet.pts * packet.time_base) + length)
                    self._longest = max(self._longest, length if packet.stream_index == self._index else 0.0)
                yield packet
        except av.FFmpegError:
            if self._container not in ("OGG", *FRAMED):
                raise
            # It is at data after the last packet: `end_place` is before it.

    def _place_of(self, head: bytes, place: int) -> int:
        """Return the place of a frame by its first bytes. A demuxer may name a place of damage that it skipped."""
        if self._data.at(place, len(head)) == head:
            return place
        match = self._data.find(re.compile(re.escape(head)), place, self._file.end)
        return place if match is None else match

    def _follows(self, packet: "av.Packet[Any]", head: bytes, place: int) -> bool:
        """Return whether a frame belongs to the stream; else another one begins at `_joint`."""
        key = int.from_bytes(head[:3], "big") & FIXED_BITS[self._container]
        self._key = self._key or key
        if key != self._key:  # other frames, or none
            self._joint = self._reached
            return False
        if not self._num_packets:
            if place - self._start > MOST_SKIPPED_BYTES + LARGEST_FRAME_BYTES:
                raise self._corrupt(f"{place - self._start:,} bytes before the first frame do not decode")
            return True
        if place != self._reached:
            nonzero = skip_zeros(self._data, self._reached, place)
            behind = skip_tags(self._data, nonzero, place)
            self._skipped += place - behind
            first = self._data.find(SYNC, behind, place + 2)
            num_skipped = max(self._skipped, nonzero - self._reached)
            if num_skipped > MOST_SKIPPED_BYTES or not frames_begin(self._data, place):
                self._joint = self._reached
            elif first is not None and first < place and frames_begin(self._data, first):
                self._joint = first  # a frame that counts others is skipped by parsers after tags
            if self._joint is not None:
                return False
        if self._container == "MP3" and COUNTING.search(memoryview(packet)):
            self._joint = self._find_counting(place, place + packet.size)
        return self._joint is None

    def _find_counting(self, place: int, end: int) -> int | None:
        """Return the place in a packet at which a frame counts those of another stream; tags may stand before it."""
        while (frame := self._data.find(SYNC, place, end)) is not None:
            if COUNTING.search(self._data.at(frame, 64)) and frames_begin(self._data, frame):
                return frame
            place = frame + 1
        return None

    def end_place(self) -> int:
        """Return the place in the recording up to which the stream reaches."""
        if self._joint is not None or self._undecoded is not None:
            return min(place for place in (self._joint, self._undecoded) if place is not None)
        if self._end is not None:
            return self._end
        place = self._reached
        if self._container == "OGG":
            while place < self._file.end and self._data.at(place, 4) == b"OggS":
                place = page_end(self._data, place)
        return min(place, self._file.end, self._data.num_bytes) if self._container in RESTARTS else place

    def counted_seconds(self) -> float | None:
        """Return the seconds of the packets, which are read but not decoded."""
        for _ in self._packets():
            pass
        if self._shortfall(is_decoded=False) is not None:
            return None
        if self._page_frames is not None:
            return self._page_frames / self._rate
        return self._packet_end - self._packet_start if self._num_packets else None

    def missing(self) -> str | None:
        """Return a message on samples that the header announces, of a stream without any."""
        claimed = self.header.num_frames
        if claimed and self._container not in ("OGG", *FRAMED):
            return f"announces {claimed / self._rate:.3f} seconds"
        return None if self._num_packets else "announces a stream, which does not end"

    def _remaining_delay(self, packet: "av.Packet[Any]", frame: "av.AudioFrame") -> int:
        """Return the frames of Opus's pre-skip that FFmpeg has not skipped.

        In Matroska it takes the delay from CodecDelay, which older versions of its own muxer wrote too short. The one
        in the codec's own header (RFC 7845, section 5.1) is right.
        """
        head = self._track.codec_context.extradata or b""
        if self._subtype != "OPUS" or not head.startswith(b"OpusHead") or not packet.duration:
            return 0
        whole = round(float(packet.duration * packet.time_base) * frame.sample_rate)
        return max(0, int.from_bytes(head[10:12], "little") - (whole - frame.samples))

    def _corrupt(self, fault: str, error_type: str = "corrupt_audio") -> AudioError:
        message = f"{self._container}: {fault}, {describe(self._opening)}; expected a stream without errors"
        return AudioError(error_type, message)


@contextmanager
def open_media(
    data: RecordingBytes,
    start: int,
    opening: Opening,
    container: str,
    *,
    end: int | None = None,
    seekable: bool = False,
) -> Iterator[MediaStream]:
    """Open a recording of one of the containers of `MEDIA` or `FALLBACKS`.

    Args:
        data: the recording.
        start: place of the stream.
        opening: its first bytes.
        container: its container.
        end: place up to which it is read, if that is known.
        seekable: whether PyAV may look at its end for the duration, of the last stream of joined ones.

    Raises:
        AudioError: `unsupported_format`, `corrupt_audio`.
    """

    def corrupt(fault: str, error_type: str = "corrupt_audio") -> AudioError:
        return AudioError(error_type, f"{container}: {fault}, {describe(opening)}; expected a complete header")

    is_bounded = end is not None
    end = end or end_of_elements(data, start, container)[0] or data.num_bytes
    file: SequentialFile | SeekableFile
    if seekable or container not in RESTARTS:
        file = SeekableFile(Reader(data, start, end))
    else:
        file = SequentialFile(data, start, end, RESTARTS.get(container))
    with ExitStack() as stack:
        with _explained(corrupt):
            open_file: Callable[..., InputContainer] = av.open  # its arguments depend on the release
            demuxer = MEDIA.get(container) or FALLBACKS[container]
            try:
                media = stack.enter_context(open_file(file, "r", format=demuxer, options=_OPTIONS, **_tolerance()))
                stream = MediaStream(media, file, data, start, opening, container, may_be_joined=not is_bounded)
            except av.FFmpegError:
                end = data.find(BEGINNING, start + 12, data.num_bytes)
                if container not in FRAMED or is_bounded or end is None:
                    raise
                # It has looked at the recording after this one.
                stream = stack.enter_context(open_media(data, start, opening, container, end=end))
        yield stream


def frames_begin(data: RecordingBytes, place: int) -> bool:
    """Return whether frames of MPEG or ADTS follow one another from a place on."""
    head = data.at(place, 64)
    container = sniff(head)
    if container not in FRAMED:
        return False
    file = SequentialFile(data, place, min(data.num_bytes, place + 64 * 1024), None)
    try:
        with av.open(file, "r", format=MEDIA[container], options=_OPTIONS) as media:
            first = [packet for packet, _ in zip(media.demux(audio=0), range(3), strict=False)]
    except (av.FFmpegError, ValueError, IndexError):
        return False
    packets = [(packet.pos, bytes(packet)) for packet in first if packet.size and packet.pos is not None]
    is_counted = COUNTING.search(head) is not None
    are_joined = all(pos + len(packet) == later for (pos, packet), (later, _) in pairwise(packets))
    are_alike = all(packet[:2] == head[:2] for _, packet in packets)
    return len(packets) > 1 and are_joined and are_alike and (packets[0][0] == 0 or is_counted)


def _tolerance() -> dict[str, str]:
    """Return the argument of `av.open` for tags that are no UTF-8. From release 19 on, PyAV reads them without it."""
    return {"metadata_errors": "replace"} if int(av.__version__.partition(".")[0]) < 19 else {}


@contextmanager
def _explained(make_error: Callable[..., AudioError]) -> Iterator[None]:
    try:
        yield
    except av.error.MemoryError as error:  # also for a size that no recording has
        raise make_error(f"FFmpeg reports {error.strerror!r}", "out_of_memory") from None
    except (av.FFmpegError, ValueError, OverflowError) as error:
        words = getattr(error, "strerror", None) or str(error)
        raise make_error(f"FFmpeg reports {words!r}") from None
