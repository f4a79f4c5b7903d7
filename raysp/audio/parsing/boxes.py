"""Where a recording of nested boxes ends that another one may follow: MP4, Matroska and ASF."""

import re
import sys

from raysp.audio.parsing.chunks import is_name
from raysp.audio.parsing.placed_bytes import Bytes, begins_recording, find_beginning

MOST_BOXES = 64
"""Boxes that are looked at for the end of a recording without reading all of it."""
SEGMENT, CLUSTER, VOID = b"\x18\x53\x80\x67", b"\x1f\x43\xb6\x75", b"\xec"
CLUSTERS = re.compile(re.escape(CLUSTER))
ELEMENTS = (
    *(b"\x11\x4d\x9b\x74", b"\x15\x49\xa9\x66", b"\x16\x54\xae\x6b", b"\x1c\x53\xbb\x6b", b"\x12\x54\xc3\x67"),
    *(b"\x10\x43\xa7\x70", b"\x19\x41\xa4\x69", b"\x58\x54", VOID, b"\xbf", b"\xe7", b"\xa3", b"\xa0", b"\xa7"),
    *(b"\xab", b"\xaf"),
)
"""Names of what segments and clusters hold (RFC 9559, section 5.1)."""
ASF_DATA = b"6&\xb2u"
ASF_INDEXES = (b"\x90\x08\x00\x33", b"\xd3\x29\xe2\xd6", b"\xf8\x03\xb1\xfe", b"\xd0\x3f\xb7\x3c")
"""First bytes of the objects that follow the data: indexes of four kinds (ASF specification, sections 6 and 10.2)."""


def end_of_boxes(data: Bytes, start: int, container: str) -> int:
    """Return the place at which the recording at `start` ends. All of its boxes are looked at, if necessary."""
    place = _ENDS[container](data, start, sys.maxsize)
    return data.num_bytes if place is None else min(place, data.num_bytes)


def known_end_of_boxes(data: Bytes, start: int, container: str) -> int | None:
    """Return the place at which the recording at `start` ends; None if its first boxes do not have it."""
    place = _ENDS[container](data, start, MOST_BOXES)
    return None if place is None else min(place, data.num_bytes)


def _mp4(data: Bytes, start: int, most: int) -> int | None:
    place, kinds = start, set[bytes]()
    while most:
        most -= 1
        head = data.at(place, 16)
        num_bytes, kind = int.from_bytes(head[:4], "big"), head[4:8]
        num_bytes = int.from_bytes(head[8:], "big") if num_bytes == 1 else num_bytes
        is_whole = b"moov" in kinds and b"mdat" in kinds
        if place >= data.num_bytes or (kind == b"ftyp" and b"moov" in kinds):
            return place
        if place > start and kind != b"ftyp" and begins_recording(data, place):
            return place
        if len(head) < 8 or num_bytes < 8 or not is_name(kind):
            return place if is_whole and num_bytes else data.num_bytes  # a size of 0: up to the end
        kinds.add(kind)
        place += num_bytes
    return None


def _matroska(data: Bytes, start: int, most: int) -> int | None:
    place = start + 4
    size = _size(data, place)
    if size is None:
        return data.num_bytes
    place += size[0] + size[1]
    while (head := data.at(place, 4)) == SEGMENT or head[:1] == VOID:
        id_bytes = 4 if head == SEGMENT else 1
        size = _size(data, place + id_bytes)
        if size is None:  # not known when it was written
            return _end_of_elements(data, place + id_bytes) if most > MOST_BOXES else None
        place += id_bytes + size[0] + size[1]
    return place


def _end_of_elements(data: Bytes, place: int) -> int:
    """Return the end of a segment of unknown size, whose elements are followed. It goes on behind damage."""
    place += _size_bytes(data, place)
    while place < data.num_bytes:
        head = data.at(place, 4)
        name = next((one for one in (CLUSTER, *ELEMENTS) if head.startswith(one)), None)
        if name is None:
            places = (one for one, _ in data.matches(CLUSTERS, place, data.num_bytes))
            following, other = next(places, None), find_beginning(data, place, data.num_bytes)
            if following is None or (other is not None and other < following):
                return place if other is None else other
            place, name = following, CLUSTER
        size = _size(data, place + len(name))
        place += len(name) + _size_bytes(data, place + len(name))
        place += size[1] if size is not None and name != CLUSTER else 0  # a cluster's elements are followed too
    return place


def _size_bytes(data: Bytes, place: int) -> int:
    """Return the bytes of the size at a place."""
    head = data.at(place, 1)
    return 9 - head[0].bit_length() if head and head[0] else 1


def _size(data: Bytes, place: int) -> tuple[int, int] | None:
    """Return the bytes of a size and its value; None if the value is unknown."""
    head = data.at(place, 8)
    if not head or not head[0]:
        return None
    num_bytes = 9 - head[0].bit_length()
    value = int.from_bytes(head[:num_bytes], "big") & (1 << 7 * num_bytes) - 1
    return None if value == (1 << 7 * num_bytes) - 1 else (num_bytes, value)


def _asf(data: Bytes, start: int, most: int) -> int | None:
    place, has_data = start, False
    while most:
        most -= 1
        head = data.at(place, 24)
        num_bytes = int.from_bytes(head[16:], "little")
        is_known = head.startswith((ASF_DATA, *ASF_INDEXES)) or place == start
        if place >= data.num_bytes or (has_data and not is_known):
            return place
        if len(head) < 24 or num_bytes < 24:
            return data.num_bytes
        has_data = has_data or head.startswith(ASF_DATA)
        place += num_bytes
    return None


_ENDS = {"MP4": _mp4, "Matroska": _matroska, "ASF": _asf}
