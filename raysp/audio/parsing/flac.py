"""FLAC streams by their bytes: the samples that STREAMINFO counts, and frames behind them (RFC 9639)."""

import re
from collections.abc import Iterator

from raysp.audio.parsing.placed_bytes import Bytes, id3v2_bytes

STREAM = re.compile(rb"fLaC[\x00\x80]\x00\x00\x22")
SYNC = re.compile(rb"\xff[\xf8\xf9]")
HEADER_BYTES = 42
"""The magic, and STREAMINFO with its header."""
COUNT_PLACE = 21
"""Place of the count of samples: the low half of a byte, and four bytes."""
AHEAD_BYTES = 8 * 1024
"""Bytes that libFLAC reads ahead."""
STEP_BYTES = 1024
"""Bytes that it is given at once near the end of a stream, so that little is left to look at behind the samples."""
MARGIN_BYTES = 64
"""Bytes that it may hold from before the last ones that it read: less than a word, and a header."""
_POLYNOMIAL = 0x07


def magic_place(data: Bytes, start: int) -> int:
    """Return the place of the magic of a stream, behind its tags."""
    while num_bytes := id3v2_bytes(data.at(start, 10)):
        start += num_bytes
    return start


def without_count(data: Bytes, start: int) -> tuple[int, bytes] | None:
    """Return the place behind the count of samples, and the bytes of the stream before it without a count."""
    place = magic_place(data, start)
    head = data.at(place, COUNT_PLACE + 5)
    if not STREAM.match(head) or len(head) < COUNT_PLACE + 5:
        return None
    return place + len(head), head[:COUNT_PLACE] + bytes([head[COUNT_PLACE] & 0xF0]) + bytes(4)


def find_later_frame(data: Bytes, start: int, end: int, header: bytes, num_samples: int) -> int | None:
    """Return the place of the first frame between two places with samples that are not the first `num_samples`."""
    frames = _frames(data, start, end, header)
    return next((place for place, first, size in frames if first + size > num_samples), None)


def find_consecutive(data: Bytes, start: int, end: int, header: bytes) -> list[tuple[int, int]]:
    """Return the first samples and sizes of frames between two places that follow one another, or an empty list.

    A single frame may be found by chance.
    """
    frames = list(_frames(data, start, end, header))
    following = {first for _, first, _ in frames}
    preceding = {first + size for _, first, size in frames}
    return [(first, size) for _, first, size in frames if first + size in following or first in preceding]


def has_frame(data: Bytes, start: int, end: int) -> bool:
    """Return whether a frame begins between two places."""
    return any(_frame(data.at(place, 16)) for place, _ in data.matches(SYNC, start, end))


def _frames(data: Bytes, start: int, end: int, header: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield the places, first samples and sizes of frames between two places."""
    block_samples = int.from_bytes(header[8:10], "big")
    for place, magic in data.matches(SYNC, start, end):
        found = _frame(data.at(place, 16))
        if found is not None:
            number, size = found
            yield place, number if magic[1] & 1 else number * block_samples, size


def _frame(head: bytes) -> tuple[int, int] | None:
    """Return the coded number and the samples of the frame that begins with some bytes; None without a valid header."""
    if len(head) < 6 or head[2] >> 4 == 0 or head[2] & 0x0F == 0x0F or head[3] >> 4 > 10 or head[3] & 1:
        return None
    num_coded = 1 if head[4] < 0x80 else 8 - (head[4] ^ 0xFF).bit_length()
    if num_coded == 0 or (num_coded == 1 and head[4] >= 0x80):
        return None
    coded = head[4 : 4 + num_coded]
    if any(one & 0xC0 != 0x80 for one in coded[1:]):
        return None
    number = coded[0] if num_coded == 1 else coded[0] & (0x7F >> num_coded)
    for one in coded[1:]:
        number = number << 6 | one & 0x3F
    size_bits, rate_bits, place = head[2] >> 4, head[2] & 0x0F, 4 + num_coded
    num_size = {6: 1, 7: 2}.get(size_bits, 0)
    end = place + num_size + {12: 1, 13: 2, 14: 2}.get(rate_bits, 0)
    if len(head) <= end or _crc8(head[:end]) != head[end]:
        return None
    return number, _block_samples(size_bits, head[place : place + num_size])


def _block_samples(bits: int, coded: bytes) -> int:
    if bits == 1:
        return 192
    if bits < 6:
        return 576 << bits - 2
    return int.from_bytes(coded, "big") + 1 if bits < 8 else 256 << bits - 8


def _crc8(data: bytes) -> int:
    crc = 0
    for one in data:
        crc ^= one
        for _ in range(8):
            crc = (crc << 1 ^ (_POLYNOMIAL if crc & 0x80 else 0)) & 0xFF
    return crc
