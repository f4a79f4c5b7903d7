"""Frames of AAC in ADTS: where a stream of them ends (ISO 13818-7, section 6.2)."""

import re

from raysp.audio.parsing.placed_bytes import Bytes, find_beginning, skip_tags

SYNC = re.compile(rb"\xff[\xf0\xf1\xf8\xf9]")
HEADER_BYTES = 7
CONSECUTIVE = 4
"""Consecutive frames of one format that begin a stream: fewer are found by chance."""


def frame_of(head: bytes) -> tuple[int, tuple[int, int, int]] | None:
    """Return the size in bytes of the frame with this header, and its version, profile and rate; None for others."""
    if len(head) < 6 or head[0] != 0xFF or head[1] & 0xF6 != 0xF0 or head[2] >> 2 & 15 > 12:
        return None
    num_bytes = (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
    return (num_bytes, (head[1] & 8, head[2] >> 6, head[2] >> 2 & 15)) if num_bytes > HEADER_BYTES else None


def walk(data: Bytes, place: int, end: int) -> tuple[int, int]:
    """Follow frames of one format. Returns the place of their end, and their number."""
    format_ = None
    num_frames = 0
    while place + HEADER_BYTES <= end and (frame := frame_of(data.at(place, HEADER_BYTES))):
        if format_ not in (None, frame[1]):
            break
        format_ = frame[1]
        place += frame[0]
        num_frames += 1
    return place, num_frames


def begins(data: Bytes, place: int, end: int) -> bool:
    """Return whether several frames that follow one another begin at a place."""
    return bool(frame_of(data.at(place, HEADER_BYTES))) and walk(data, place, min(end, place + 65536))[1] >= CONSECUTIVE


def find_frames(data: Bytes, start: int, end: int) -> int | None:
    """Return the place between two places from which frames follow one another."""
    return next((place for place, _ in data.matches(SYNC, start, end) if begins(data, place, end)), None)


def end_of_frames(data: Bytes, start: int) -> int:
    """Return the place at which a stream ends, or another recording begins. It goes on behind damage and tags."""
    end, place = data.num_bytes, skip_tags(data, start, data.num_bytes)
    while True:
        place = walk(data, place, end)[0]
        if place >= end:
            return end
        following = find_frames(data, place, end)
        other = find_beginning(data, place, end if following is None else following)
        if following is None or other is not None:
            return place if other is None else other
        place = following
