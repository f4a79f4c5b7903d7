"""Where a recording of nested boxes ends that another one may follow: MP4, Matroska and ASF."""

from raysp.audio.reading import Bytes
from raysp.audio.tags import begins_recording, find_beginning

MOST_BOXES = 64
SEGMENT = b"\x18\x53\x80\x67"
ASF_HEADER = b"0&\xb2u"


def end_of_boxes(data: Bytes, start: int, container: str) -> int:
    """Return the place at which the recording at `start` ends and another one begins, else the end of the data."""
    place = _ENDS[container](data, start)
    return place if place is not None and start < place < data.num_bytes else data.num_bytes


def _mp4(data: Bytes, start: int) -> int | None:
    place, kinds = start, set[bytes]()
    for _ in range(MOST_BOXES):
        head = data.at(place, 16)
        num_bytes, kind = int.from_bytes(head[:4], "big"), head[4:8]
        num_bytes = int.from_bytes(head[8:], "big") if num_bytes == 1 else num_bytes
        if place > start and (
            (kind == b"ftyp" and b"moov" in kinds) or (kind != b"ftyp" and begins_recording(data, place))
        ):
            return place
        if kind == b"moof":  # one for each second or so
            return find_beginning(data, place, data.num_bytes)
        if len(head) < 8 or num_bytes < 8:
            return None
        kinds.add(kind)
        place += num_bytes
    return None


def _matroska(data: Bytes, start: int) -> int | None:
    place = start + 4
    size = _size(data, place)
    if size is None:
        return None
    place += size[0] + size[1]
    while (head := data.at(place, 4)) == SEGMENT or head[:1] == b"\xec":  # void
        id_bytes = 4 if head == SEGMENT else 1
        size = _size(data, place + id_bytes)
        if size is None:  # not known when it was written
            return find_beginning(data, place, data.num_bytes)
        place += id_bytes + size[0] + size[1]
    return place if begins_recording(data, place) else None


def _size(data: Bytes, place: int) -> tuple[int, int] | None:
    """Return the bytes of a size and its value; None if the value is unknown."""
    head = data.at(place, 8)
    if not head or not head[0]:
        return None
    num_bytes = 9 - head[0].bit_length()
    value = int.from_bytes(head[:num_bytes], "big") & (1 << 7 * num_bytes) - 1
    return None if value == (1 << 7 * num_bytes) - 1 else (num_bytes, value)


def _asf(data: Bytes, start: int) -> int | None:
    place = start
    for _ in range(MOST_BOXES):
        head = data.at(place, 24)
        num_bytes = int.from_bytes(head[16:], "little")
        if place > start and (head.startswith(ASF_HEADER) or begins_recording(data, place)):
            return place
        if len(head) < 24 or num_bytes < 24:
            return None
        place += num_bytes
    return None


_ENDS = {"MP4": _mp4, "Matroska": _matroska, "ASF": _asf}
