"""Frames of MPEG audio: where a stream of them ends, and the counts of its first frame (Xing, Info, VBRI)."""

import re
from dataclasses import dataclass
from functools import lru_cache

from raysp.audio.parsing.placed_bytes import Bytes, id3v2_bytes

BITRATES = {
    (3, 3): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (3, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (3, 1): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 3): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (2, 1): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
"""kbit/s by (version 1: 3, version 2 and 2.5: 2) and bits of the layer, from index 1 on (ISO 11172-3, 13818-3)."""
RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
SYNC = re.compile(rb"\xff[\xe2-\xff]")
CONSECUTIVE = 4
"""Consecutive frames of one format that begin a stream: fewer are found by chance."""
HEAD_BYTES = 4 + 2 + 32 + 12


@dataclass(frozen=True, slots=True)
class Frame:
    """Header of a frame."""

    num_bytes: int
    format: tuple[int, int, int, bool]
    """Version, layer, sample rate, and whether it is mono: what a decoder cannot change within a stream."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Frame that counts the frames of its stream."""

    place: int
    """Place of the count, of four bytes."""
    num_frames: int


@lru_cache(4096)
def frame_of(head: bytes) -> Frame | None:
    """Return the frame that begins with four bytes."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version, layer = head[1] >> 3 & 3, head[1] >> 1 & 3
    bitrate, rate = head[2] >> 4, head[2] >> 2 & 3
    if version == 1 or layer == 0 or bitrate in (0, 15) or rate == 3:
        return None
    bits = 1000 * BITRATES[min(version, 3) if version == 3 else 2, layer][bitrate - 1]
    sample_rate, padding = RATES[version][rate], head[2] >> 1 & 1
    if layer == 3:
        num_bytes = (12 * bits // sample_rate + padding) * 4
    else:
        num_bytes = (72 if layer == 1 and version != 3 else 144) * bits // sample_rate + padding
    return Frame(num_bytes, (version, layer, sample_rate, head[3] >> 6 == 3))


def counts_at(data: Bytes, place: int) -> Counts | None:
    """Return the counts of the frame at a place, if it has any."""
    head = data.at(place, HEAD_BYTES)
    frame = frame_of(head[:4])
    if frame is None:
        return None
    version, _, _, is_mono = frame.format
    side = (17 if is_mono else 32) if version == 3 else (9 if is_mono else 17)
    for start in {4 + side, 6 + side}:  # with a checksum behind the header, two bytes later
        if head[start : start + 4] in (b"Xing", b"Info") and head[start + 7 : start + 8] and head[start + 7] & 1:
            return Counts(place + start + 8, int.from_bytes(head[start + 8 : start + 12], "big"))
        if head[start : start + 4] in (b"Xing", b"Info"):
            return Counts(place + start + 8, 0)
    if data.at(place + 36, 4) == b"VBRI":
        return Counts(place + 50, int.from_bytes(data.at(place + 50, 4), "big"))
    return None


def first_frame(data: Bytes, start: int, end: int) -> int:
    """Return the place of the first frame of a stream, behind its tags."""
    while num_bytes := id3v2_bytes(data.at(start, 10)):
        start += num_bytes
    return start if frame_of(data.at(start, 4)) else find_frames(data, start, min(end, start + 65536)) or start


def walk(data: Bytes, place: int, end: int) -> tuple[int, int]:
    """Follow frames of one format, up to one that counts those of another stream.

    Returns:
        The place of the end, and the number of frames.
    """
    format_ = None
    num_frames = 0
    while place + 4 <= end:
        head = data.at(place, HEAD_BYTES)
        frame = frame_of(head[:4])
        if frame is None or (format_ is not None and frame.format != format_):
            break
        if num_frames and (b"Xing" in head or b"Info" in head or b"VBRI" in head) and counts_at(data, place):
            break
        format_ = frame.format
        place += frame.num_bytes
        num_frames += 1
    return place, num_frames


def begins(data: Bytes, place: int, end: int) -> bool:
    """Return whether frames begin at a place: one that counts them, or several that follow one another."""
    if frame_of(data.at(place, 4)) is None:
        return False
    return counts_at(data, place) is not None or walk(data, place, min(end, place + 8192))[1] >= CONSECUTIVE


def find_frames(data: Bytes, start: int, end: int) -> int | None:
    """Return the place between two places from which frames follow one another; a few reach up to the end."""
    for place, _ in data.matches(SYNC, start, end):
        if frame_of(data.at(place, 4)) is None:
            continue
        if counts_at(data, place):
            return place
        reached, num_frames = walk(data, place, end)
        if num_frames >= CONSECUTIVE or (num_frames >= 2 and reached >= end):
            return place
    return None


def end_of_plain_stream(data: Bytes, start: int, end: int) -> tuple[int, int]:
    """Return the start of the stream behind one that does not count its frames, or `end`, and the frames of the latter.

    A damaged stream goes on behind the damage, as its decoder does. A stream that counts its frames has 0.
    """
    place = first_frame(data, start, end)
    first = frame_of(data.at(place, 4))
    if first is None or counts_at(data, place):
        return end, 0
    total = 0
    while True:
        place, num_frames = walk(data, place, end)
        total += num_frames
        following = find_frames(data, place, end) if place + 4 <= end else None
        if following is None:
            return end, total
        frame = frame_of(data.at(following, 4))
        if counts_at(data, following) or frame is None or frame.format != first.format:
            return following, total
        place = following


def num_samples(head: bytes) -> int:
    """Return the samples of the frame that begins with four bytes."""
    frame = frame_of(head)
    if frame is None:
        return 0
    version, layer, _, _ = frame.format
    return 384 if layer == 3 else 576 if layer == 1 and version != 3 else 1152


def mean_frame_bytes(head: bytes) -> float:
    """Return the mean bytes of frames of one bitrate, of which one begins with four bytes."""
    frame = frame_of(head)
    assert frame is not None
    version, layer, sample_rate, _ = frame.format
    bitrate = 1000 * BITRATES[3 if version == 3 else 2, layer][(head[2] >> 4) - 1]
    return num_samples(head) / 8 * bitrate / sample_rate


def counting_frame(head: bytes, num_frames: int) -> bytes:
    """Return a frame that counts those of a stream, of which the first begins with four bytes."""
    head = bytes([head[0], head[1] | 1, head[2] & 0x0D | 0x90, head[3]])  # without a checksum, of some 100 kbit/s
    frame = frame_of(head)
    assert frame is not None
    version, _, _, is_mono = frame.format
    side = (17 if is_mono else 32) if version == 3 else (9 if is_mono else 17)
    counted = head + bytes(side) + b"Xing" + (1).to_bytes(4, "big") + num_frames.to_bytes(4, "big")
    return counted.ljust(frame.num_bytes, b"\0")
