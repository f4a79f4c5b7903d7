"""Opus in Ogg, decoded by the libopus that PyAV brings: 1.8 times as fast as that of libsndfile, with its samples.

Pages and packets are read here (RFC 3533, RFC 7845). Anything irregular is left to libsndfile, as without PyAV: a page
without its checksum or out of order, positions that are not those of the packets, a stream without an end, a packet
that does not decode. There this decoder gives up, and libsndfile decodes the stream up to the place and goes on.
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from raysp.audio.media import UNBOUNDED
from raysp.audio.parsing.ogg import HEADER_BYTES, IS_FIRST, IS_LAST, MOST_PAGE_BYTES, checksum, last_position
from raysp.audio.parsing.placed_bytes import Bytes, PlacedReader

if TYPE_CHECKING:
    import av

RATE = 48_000
HEAD_BYTES = 19
MOST_PACKET_SAMPLES = 5760  # 120 ms
IS_CONTINUED = 1

Frames = npt.NDArray[np.float32]  # (num_frames, channels)


@functools.cache
def is_available() -> bool:
    """Return whether PyAV is installed with libopus."""
    try:
        import av
    except ModuleNotFoundError as error:
        if error.name != "av":
            raise
        return False
    return "libopus" in av.codecs_available


class Irregular(Exception):  # noqa: N818 - not an error: libsndfile decodes the stream
    """A stream that is left to libsndfile."""


@dataclass(frozen=True, slots=True)
class OpusPage:
    """A page: its flags, its position in samples, and its packets, of which the last may go on in the next page."""

    flags: int
    position: int
    packets: list[bytes]
    is_complete: bool
    place: int
    """Place behind the page."""


def open_opus(reader: PlacedReader) -> "OpusSource | None":
    """Return the decoder of a stream that libsndfile would decode at 48 kHz; None for all others."""
    data = Bytes(reader)
    try:
        pages = _pages(data)
        head = next(pages).packets[0]
        if not _is_plain(head) or not is_available():
            return None
        end = last_position(data, data.num_bytes)
        return None if end is None else OpusSource(pages, head, end)
    except (Irregular, StopIteration, IndexError):
        return None


def _is_plain(head: bytes) -> bool:
    """Return whether a header has one or two channels, no gain, and a rate that libsndfile decodes at 48 kHz."""
    return (
        len(head) == HEAD_BYTES
        and head.startswith(b"OpusHead\x01")
        and head[9] in (1, 2)
        and int.from_bytes(head[12:16], "little") == RATE
        and head[16:] == bytes(3)
    )


class OpusSource:
    """A stream of Opus, read sequentially; the attributes are those of `soundfile.SoundFile`."""

    format, subtype = "OGG", "OPUS"
    samplerate, frames = RATE, UNBOUNDED

    def __init__(self, pages: Iterator[OpusPage], head: bytes, end: int) -> None:
        self.channels = head[9]
        self.has_given_up = False
        """Whether the frames ended where the stream is irregular."""
        self._held = np.empty((0, self.channels), np.float32)
        self._decoded = self._decode(pages, head, end)

    def read(self, num_frames: int) -> Frames:
        """Read at most `num_frames`, fewer at the end or where the decoder gives up."""
        parts, num_held = [self._held], len(self._held)
        try:
            while num_held < num_frames and (found := next(self._decoded, None)) is not None:
                parts.append(found)
                num_held += len(found)
        except Irregular:
            self.has_given_up = True
        whole = np.concatenate(parts) if len(parts) > 1 else parts[0]
        # A copy, since a view would keep all that was decoded.
        self._held = whole[num_frames:].copy()
        return whole[:num_frames]

    def _decode(self, pages: Iterator[OpusPage], head: bytes, end: int) -> Iterator[Frames]:
        """Yield the frames of each page, without the delay at the start and behind the position of the last page.

        libsndfile gives no frames behind `end`, the position of the last page, and neither does this decoder.
        """
        decoder = _decoder(head)
        _skip_comments(pages)
        left = int.from_bytes(head[10:12], "little")  # samples to skip
        position = 0
        begun = b""
        is_last = False
        for page in pages:
            if is_last or page.flags & IS_FIRST or bool(page.flags & IS_CONTINUED) != bool(begun):
                raise Irregular
            packets = page.packets if not begun or not page.packets else [begun + page.packets[0], *page.packets[1:]]
            begun = b"" if page.is_complete or not packets else packets.pop()
            num_samples = sum(map(packet_samples, packets))
            is_last = bool(page.flags & IS_LAST)
            added = page.position - position
            if page.position > end or (begun and is_last):
                raise Irregular
            if not (0 < added <= num_samples if is_last else added == num_samples):
                raise Irregular
            position = page.position
            frames = self._frames(decoder, packets, num_samples)[:added]
            yield frames[left:]
            left = max(0, left - len(frames))
        if not is_last:
            raise Irregular

    def _frames(self, decoder: "av.AudioCodecContext", packets: list[bytes], num_samples: int) -> Frames:
        """Return the frames of packets.

        Raises:
            Irregular: a packet does not decode, or to another number of frames than it has.
        """
        import av

        parts = []
        try:
            for packet in packets:
                for frame in decoder.decode(av.Packet(packet)):
                    if frame.format.name != "flt":
                        raise Irregular
                    parts.append(np.frombuffer(memoryview(frame.planes[0]), np.float32, frame.samples * self.channels))
        except (av.FFmpegError, ValueError):
            raise Irregular from None
        found = np.concatenate(parts).reshape(-1, self.channels) if parts else self._held[:0]
        if len(found) != num_samples:
            raise Irregular
        return found


def _decoder(head: bytes) -> "av.AudioCodecContext":
    import av

    decoder = av.CodecContext.create("libopus", "r")
    assert isinstance(decoder, av.AudioCodecContext)
    decoder.extradata = head[:10] + bytes(2) + head[12:]  # the delay is skipped here
    decoder.sample_rate, decoder.layout = RATE, "mono" if head[9] == 1 else "stereo"
    decoder.options = {"request_sample_fmt": "flt"}  # else it rounds to 16 bits
    decoder.thread_count = 1
    return decoder


def _skip_comments(pages: Iterator[OpusPage]) -> None:
    """Skip the pages of the second packet, which ends its page (RFC 7845, section 3)."""
    for page in pages:
        if page.flags & (IS_FIRST | IS_LAST) or len(page.packets) != 1:
            raise Irregular
        if page.is_complete:
            return


def _pages(data: Bytes) -> Iterator[OpusPage]:
    """Yield the pages of a stream that follow one another.

    Raises:
        Irregular: a page is of another stream, damaged, or out of order.
    """
    place, number, serial = 0, 0, data.at(14, 4)
    while place < data.num_bytes:
        head = data.at(place, MOST_PAGE_BYTES)
        sizes = head[HEADER_BYTES : HEADER_BYTES + head[26]] if len(head) > HEADER_BYTES else b""
        begin = HEADER_BYTES + len(sizes)
        end = begin + sum(sizes)
        expected = b"OggS\x00" + head[5:14] + serial + number.to_bytes(4, "little")
        if not sizes or not head.startswith(expected) or len(head) < end:
            raise Irregular
        if checksum(head[:end]) != int.from_bytes(head[22:26], "little"):
            raise Irregular
        place, number = place + end, number + 1
        position = int.from_bytes(head[6:14], "little", signed=True)
        yield OpusPage(head[5], position, list(_packets(head, sizes, begin)), sizes[-1] < 255, place)


def _packets(page: bytes, sizes: bytes, place: int) -> Iterator[bytes]:
    start = place
    for size in sizes:
        place += size
        if size < 255:
            yield page[start:place]
            start = place
    if sizes[-1] == 255:
        yield page[start:place]


def packet_samples(packet: bytes) -> int:
    """Return the samples of a packet at 48 kHz (RFC 6716, section 3.1).

    Raises:
        Irregular: it has none, or more than a packet may have.
    """
    if not packet:
        raise Irregular
    config, code = packet[0] >> 3, packet[0] & 3
    if config < 12:
        of_a_frame = (480, 960, 1920, 2880)[config & 3]
    elif config < 16:
        of_a_frame = (480, 960)[config & 1]
    else:
        of_a_frame = (120, 240, 480, 960)[config & 3]
    num_frames = 1 if code == 0 else 2 if code < 3 else packet[1] & 63 if len(packet) > 1 else 0
    if not 0 < num_frames * of_a_frame <= MOST_PACKET_SAMPLES:
        raise Irregular
    return num_frames * of_a_frame
