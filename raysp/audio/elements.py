"""Sizes of pages of Ogg, and of the top elements of MP4, Matroska and ASF."""

from raysp.audio.recording_bytes import BEGINNING, RecordingBytes

_ASF_OBJECTS = (b"6&\xb2u", b"\x90\x08\x00\x33", b"\xd3\x29\xe2\xd6", b"\xf8\x03\xb1\xfe", b"\xd0\x3f\xb7\x3c")
"""First bytes of data and of indexes of four kinds (ASF specification, sections 5.1, 6 and 10.2)."""


def page_end(data: RecordingBytes, place: int) -> int:
    """Return the place behind the page of Ogg at a place."""
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


def end_of_elements(data: RecordingBytes, start: int, container: str) -> tuple[int | None, bool]:
    """Return the place at which a container ends by the sizes of its elements, and whether a film comes in fragments.

    None without such sizes, as in a live stream.
    """
    if container == "Matroska":
        place = start
        for name in (b"\x1aE\xdf\xa3", b"\x18S\x80g"):
            head = data.at(place, 12)
            size_bytes = 9 - head[4].bit_length() if len(head) > 4 else 9
            size = int.from_bytes(head[4 : 4 + size_bytes], "big") & (1 << 7 * size_bytes) - 1
            if not head.startswith(name) or size_bytes > 8 or size == (1 << 7 * size_bytes) - 1:
                return None, False
            place += 4 + size_bytes + size
        return min(place, data.num_bytes), False
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
        if not is_known or size < 8 or (place > start and BEGINNING.match(head) and kind != b"ftyp"):
            is_whole = container == "ASF" or {b"moov", b"mdat"} <= kinds
            return (place if is_whole and (size or not is_known) else data.num_bytes), b"moof" in kinds
        kinds.add(kind)
        place += size
    return (min(place, data.num_bytes) if kinds else None), b"moof" in kinds
