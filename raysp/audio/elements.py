"""Sizes of pages of Ogg and of the top elements of MP4, Matroska and ASF, and the facts in them."""

import re
from collections.abc import Iterator

from raysp.audio.recording_bytes import BEGINNING, RecordingBytes

_ASF_OBJECTS = (b"6&\xb2u", b"\x90\x08\x00\x33", b"\xd3\x29\xe2\xd6", b"\xf8\x03\xb1\xfe", b"\xd0\x3f\xb7\x3c")
"""First bytes of data and of indexes of four kinds (ASF specification, sections 5.1, 6 and 10.2)."""
_PAGE = re.compile(rb"OggS\x00[\x00\x01\x04\x05]")
"""First bytes of a page that begins no stream."""
_BOXES = frozenset(b"ftyp styp moov moof mdat free skip wide uuid meta udta sidx mfra".split())
"""Kinds of top boxes of MP4 that may be cut at the end of a recording."""
_BEHIND_CLUSTERS = re.compile(rb"\x1c\x53\xbb\x6b|\x12\x54\xc3\x67|\x19\x41\xa4\x69|\x10\x43\xa7\x70|\x11\x4d\x9b\x74")
"""Names of elements that stand after the packets of Matroska: cues, tags, attachments, chapters and seek head."""


def page_end(data: RecordingBytes, place: int) -> int:
    """Return the place after the page of Ogg at a place."""
    head = data.at(place, 27 + 255)
    sizes = head[27 : 27 + head[26]] if len(head) > 26 else b""
    return place + 27 + len(sizes) + sum(sizes)


def frames_of_one_page(data: RecordingBytes, place: int) -> int | None:
    """Return the frames of an Ogg stream that stand in one page by its granule position; None for several pages."""
    first = data.at(place, 27)
    while (head := data.at(place, 27)).startswith(b"OggS") and head[14:18] == first[14:18]:
        position = int.from_bytes(head[6:14], "little", signed=True)
        if position > 0:
            return position if head[5] & 4 else None
        place = page_end(data, place)
    return None


def lost_page(data: RecordingBytes, start: int, end: int, packets: tuple[int, int, int], least: float) -> int | None:
    """Return the place of a page of Ogg that is before or after those with packets, and whole but for damage.

    Args:
        data: the recording.
        start: place of the stream.
        end: place of its end.
        packets: places of the first page and the last two with packets.
        least: frames that are lost at least, after the packets.
    """
    place, (first, _, last) = start, packets
    while (head := data.at(place, 27)).startswith(b"OggS") and head[6:14] in (bytes(8), b"\xff" * 8):
        place = page_end(data, place)
    if place < first and head[5:6] != b"\x01":  # a live stream may begin in a packet
        return place
    position = int.from_bytes(data.at(last + 6, 8), "little", signed=True)
    place, serial = last + 1, data.at(last + 14, 4)
    while (page := data.find(_PAGE, place, end)) is not None:
        head = data.at(page, 27)
        is_later = int.from_bytes(head[6:14], "little", signed=True) - position > least
        is_empty = page_end(data, page) == page + 27 + sum(head[26:])
        if head[14:18] == serial and is_later and not is_empty and page_end(data, page) <= end:
            return page
        place = page + 1
    return None


def page_lost_before(data: RecordingBytes, packets: tuple[int, int], least: float) -> int | None:
    """Return the place of a page of Ogg that was lost before the last one.

    FFmpeg counts times of the last page from those of the page before it, so a time shows no gap.

    Args:
        data: the recording.
        packets: places of the last two pages with packets.
        least: least granule position of the last page that is too late.
    """
    before, last = (data.at(place, 27) for place in packets)
    numbers = [int.from_bytes(head[18:22], "little") for head in (before, last)]
    is_late = int.from_bytes(last[6:14], "little", signed=True) > least
    return page_end(data, packets[0]) if is_late and numbers[1] > numbers[0] + 1 else None


def end_of_elements(data: RecordingBytes, start: int, container: str) -> tuple[int | None, bool]:
    """Return the place at which a container ends by the sizes of its elements, and whether a film comes in fragments.

    None without such sizes, as in a live stream.
    """
    if container == "Matroska":
        end = _segment_end(data, start)
        return (None if end is None else min(end, data.num_bytes)), False
    place, kinds = start, set[bytes]()
    while container in ("MP4", "ASF") and place < data.num_bytes:
        head = data.at(place, 24)
        if container == "ASF":
            kind, size = head[:4], int.from_bytes(head[16:], "little")
            is_known = place == start or kind in _ASF_OBJECTS
        else:
            kind, size = head[4:8], int.from_bytes(head[:4], "big")
            size = int.from_bytes(head[8:16], "big") if size == 1 else size
            is_known = kind.isalnum() and (kind != b"ftyp" or b"moov" not in kinds)
            is_known = is_known and (kind in _BOXES or place + size <= data.num_bytes)
        if not is_known or size < 8 or (place > start and BEGINNING.match(head) and kind != b"ftyp"):
            is_whole = container == "ASF" or {b"moov", b"mdat"} <= kinds
            return (place if is_whole and (size or not is_known) else data.num_bytes), b"moof" in kinds
        kinds.add(kind)
        place += size
    return (min(place, data.num_bytes) if kinds else None), b"moof" in kinds


def _segment_end(data: RecordingBytes, place: int) -> int | None:
    """Return the end of a stream of Matroska by the size of its segment, maybe beyond the end of the recording."""
    for name in (b"\x1aE\xdf\xa3", b"\x18S\x80g"):
        head = data.at(place, 12)
        size_bytes = 9 - head[4].bit_length() if len(head) > 4 else 9
        size = int.from_bytes(head[4 : 4 + size_bytes], "big") & (1 << 7 * size_bytes) - 1
        if not head.startswith(name) or size_bytes > 8 or size == (1 << 7 * size_bytes) - 1:
            return None
        place += 4 + size_bytes + size
    return place


def bytes_behind_packets(data: RecordingBytes, start: int, reached: int) -> int:
    """Return the bytes after the packets of Matroska, up to elements that stand there or the end of the segment."""
    end = _segment_end(data, start) or data.num_bytes
    behind = data.find(_BEHIND_CLUSTERS, reached, min(end, data.num_bytes))
    return (end if behind is None else behind + max(0, end - data.num_bytes)) - reached


def seconds_of_film(data: RecordingBytes, start: int, end: int) -> float | None:
    """Return the seconds of the audio track of an MP4 by its header and its list of edits; None where it has none."""
    for kind, place, box_end in _boxes(data, start, end):
        if kind == b"moov":
            inside = {name: at for name, at, _ in _boxes(data, place, box_end)}
            scale, _ = _scale_and_duration(data, inside.get(b"mvhd"))
            tracks = [(at, last) for name, at, last in _boxes(data, place, box_end) if name == b"trak"]
            seconds = [_seconds_of_track(data, at, last, scale) for at, last in tracks]
            return next((length for length in seconds if length is not None), None)
    return None


def _seconds_of_track(data: RecordingBytes, place: int, end: int, scale: int) -> float | None:
    """Return the seconds of a track of sound in a film with a number of units a second."""
    boxes = {name: at for name, at, _ in _nested(data, place, end, (b"mdia", b"edts"))}
    units, length = _scale_and_duration(data, boxes.get(b"mdhd"))
    if b"hdlr" not in boxes or data.at(boxes[b"hdlr"] + 8, 4) != b"soun" or not units or not length:
        return None
    silent = heard = 0
    if b"elst" in boxes and scale:
        at, is_long = boxes[b"elst"], data.at(boxes[b"elst"], 1) == b"\x01"
        size, wide = (20, 8) if is_long else (12, 4)
        for number in range(min(1000, int.from_bytes(data.at(at + 4, 4), "big"))):
            edit = data.at(at + 8 + size * number, size)
            if int.from_bytes(edit[wide : 2 * wide], "big", signed=True) < 0:
                silent += int.from_bytes(edit[:wide], "big")
            else:
                heard += int.from_bytes(edit[:wide], "big")
    return (silent / scale if silent else 0.0) + min(length / units, heard / scale if heard else length / units)


def _scale_and_duration(data: RecordingBytes, place: int | None) -> tuple[int, int]:
    """Return the units a second and the duration in a header of a film or track; zeros where that is unknown."""
    head = b"" if place is None else data.at(place, 32)
    first, wide = (20, 8) if head[:1] == b"\x01" else (12, 4)
    duration = int.from_bytes(head[first + 4 : first + 4 + wide], "big")
    return int.from_bytes(head[first : first + 4], "big"), 0 if duration == (1 << 8 * wide) - 1 else duration


def _nested(data: RecordingBytes, place: int, end: int, parents: tuple[bytes, ...]) -> Iterator[tuple[bytes, int, int]]:
    for name, at, last in _boxes(data, place, end):
        yield name, at, last
        if name in parents:
            yield from _boxes(data, at, last)


def _boxes(data: RecordingBytes, place: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield kind, and the places of content and end, of boxes of MP4."""
    while place + 8 <= end:
        head = data.at(place, 16)
        size = int.from_bytes(head[:4], "big")
        header_bytes = 16 if size == 1 else 8
        size = int.from_bytes(head[8:16], "big") if size == 1 else size or end - place
        if size < header_bytes:
            return
        yield head[4:8], place + header_bytes, min(end, place + size)
        place += size
