"""Pages of Ogg: where the streams begin that are chained in one file (RFC 3533)."""

import re
from functools import cache

from raysp.audio.reading import Bytes

PAGE = re.compile(rb"OggS\x00[\x00-\x07]")
HEADER_BYTES = 27
MOST_PAGE_BYTES = HEADER_BYTES + 255 + 255 * 255
IS_FIRST, IS_LAST = 2, 4
_POLYNOMIAL = 0x04C11DB7


def end_of_link(data: Bytes, start: int, end: int) -> tuple[int, int]:
    """Return where the next link of a chain begins, or `end`, and where the last page before that ends.

    The first pages of multiplexed streams stand together, so they begin one link.
    """
    place = start
    while (num_bytes := _page_bytes(data, place)) and data.at(place + 5, 1)[0] & IS_FIRST:
        place += num_bytes
    last = place
    for found, magic in data.matches(PAGE, place, end):
        if magic[5] & IS_FIRST:
            if _is_whole(data, found):
                return found, found
        else:
            last = found
    num_bytes = _page_bytes(data, last)
    return end, min(end, last + num_bytes) if num_bytes else end


def has_last_page(data: Bytes, start: int, end: int) -> bool:
    """Return whether a page between two places is the last one of its stream."""
    return any(magic[5] & IS_LAST for _, magic in data.matches(PAGE, start, end))


def _page_bytes(data: Bytes, place: int) -> int:
    """Return the bytes of the page at a place; 0 if there is none, or only a part of it."""
    head = data.at(place, HEADER_BYTES + 255)
    if len(head) < HEADER_BYTES or not PAGE.match(head):
        return 0
    sizes = head[HEADER_BYTES : HEADER_BYTES + head[26]]
    return HEADER_BYTES + len(sizes) + sum(sizes) if len(sizes) == head[26] else 0


def _is_whole(data: Bytes, place: int) -> bool:
    """Return whether a page is there with its checksum. Samples may contain its first bytes."""
    page = bytearray(data.at(place, _page_bytes(data, place)))
    if len(page) < HEADER_BYTES:
        return False
    expected = int.from_bytes(page[22:26], "little")
    page[22:26] = bytes(4)
    crc = 0
    for one in page:
        crc = (crc << 8 ^ _checksums()[crc >> 24 ^ one]) & 0xFFFFFFFF
    return crc == expected


@cache
def _checksums() -> tuple[int, ...]:
    def of(crc: int) -> int:
        for _ in range(8):
            crc = crc << 1 ^ (_POLYNOMIAL if crc & 0x80000000 else 0)
        return crc & 0xFFFFFFFF

    return tuple(of(one << 24) for one in range(256))
