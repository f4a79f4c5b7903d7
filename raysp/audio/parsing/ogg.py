"""Pages of Ogg: where the streams begin that are chained in one file (RFC 3533)."""

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from raysp.audio.parsing.placed_bytes import Bytes

PAGE = re.compile(rb"OggS\x00[\x00-\x07]")
HEADER_BYTES = 27
MOST_PAGE_BYTES = HEADER_BYTES + 255 + 255 * 255
IS_FIRST, IS_LAST = 2, 4
_REVERSED = bytes(int(f"{one:08b}"[::-1], 2) for one in range(256))


@dataclass(frozen=True, slots=True)
class Page:
    """Header of a page."""

    serial: int
    """Number of its stream."""
    number: int
    """Number of the page in its stream."""
    end: int
    """Place behind the page."""


def first_serials(data: Bytes) -> set[int]:
    """Return the numbers of the streams that begin with the recording."""
    found, place = set[int](), 0
    while (num_bytes := _page_bytes(data, place)) and data.at(place + 5, 1)[0] & IS_FIRST:
        found.add(int.from_bytes(data.at(place + 14, 4), "little"))
        place += num_bytes
    return found


def begins(data: Bytes, place: int) -> bool:
    """Return whether a page begins at a place, whole or cut."""
    return data.at(place, 4) == b"OggS"


def find_pages(data: Bytes, start: int, end: int) -> Iterator[Page]:
    """Yield the pages between two places whose checksums are right."""
    for place, _ in data.matches(PAGE, start, end):
        if _is_whole(data, place):
            head = data.at(place, HEADER_BYTES)
            serial, number = int.from_bytes(head[14:18], "little"), int.from_bytes(head[18:22], "little")
            yield Page(serial, number, place + _page_bytes(data, place))


def last_position(data: Bytes, end: int) -> int | None:
    """Return the position in samples of the last whole page that ends before a place; None without one."""
    places = [place for place, _ in data.matches(PAGE, max(0, end - MOST_PAGE_BYTES), end)]
    last = next((place for place in reversed(places) if _is_whole(data, place)), None)
    return None if last is None else int.from_bytes(data.at(last + 6, 8), "little", signed=True)


def end_of_link(data: Bytes, start: int, end: int) -> tuple[int, int]:
    """Return the start of the next link of a chain, or `end`, and the end of the last page before it.

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
    page = data.at(place, _page_bytes(data, place))
    return len(page) >= HEADER_BYTES and checksum(page) == int.from_bytes(page[22:26], "little")


def checksum(page: bytes) -> int:
    """Return the checksum of a page (RFC 3533, section 6): zlib's, with the bits of bytes and of itself reversed."""
    found = zlib.crc32((page[:22] + bytes(4) + page[26:]).translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int.from_bytes(found.to_bytes(4, "little").translate(_REVERSED), "big")
