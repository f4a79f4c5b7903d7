"""Containers of samples behind a header: where the samples are, how many its header counts, and a right header."""

import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from raysp.audio.parsing.placed_bytes import Bytes

UNSET = 0x7FFFF000
"""From this size on, a count of 32 bits stands for one that was not known when the header was written."""
MOST_CHUNKS = 1000
MOST_HEADER_BYTES = 16 * 1024 * 1024
W64_WAVE, W64_DATA = (
    b"wave\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a",
    b"data\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a",
)


@dataclass(frozen=True)
class Layout:
    """Samples of a recording by its header."""

    samples: int
    """Place of the first."""
    claimed: int | None
    """Bytes of samples that the header counts; None: it has no count."""
    head: Callable[[int], bytes] | None
    """Returns a header for a number of bytes of samples; None: the decoder reads up to the end."""
    has_chunks: bool = True
    """Whether chunks may follow the samples."""
    size_bytes: int = 4
    order: str = "little"
    is_packed: bool = False
    """Whether samples stand in packets, of which a table has the sizes."""


def layout_of(data: Bytes, start: int, container: str) -> Layout | None:
    """Return the place of a recording's samples; None without a complete header, or if its samples are packed."""
    found = _READERS.get(container)
    return found(data, start) if found else None


def _chunks(data: Bytes, place: int, order: str, size_bytes: int = 4) -> Iterator[tuple[bytes, int, int]]:
    """Yield the names, places and sizes of chunks. Sizes are padded to whole pairs of bytes, but not by all writers."""
    for _ in range(MOST_CHUNKS):
        head = data.at(place, 4 + size_bytes)
        if len(head) < 4 + size_bytes:
            return
        num_bytes = number(head[4:], order)
        yield head[:4], place + 4 + size_bytes, num_bytes
        place += 4 + size_bytes + num_bytes
        if (
            size_bytes == 4
            and num_bytes & 1
            and not (is_name(data.at(place, 4)) and not is_name(data.at(place + 1, 4)))
        ):
            place += 1


def is_name(name: bytes) -> bool:
    """Return whether bytes may be the name of a chunk."""
    return len(name) == 4 and all(0x20 <= one < 0x7F for one in name)


def number(digits: bytes, order: str) -> int:
    """Return the unsigned integer that bytes encode in an order, "big" or "little"."""
    return int.from_bytes(digits, "big" if order == "big" else "little")


def _wav(data: Bytes, start: int) -> Layout | None:
    magic = data.at(start, 4)
    order = "big" if magic == b"RIFX" else "little"
    kept: list[tuple[bytes, bytes]] = []
    large = None
    for name, place, num_bytes in _chunks(data, start + 12, order):
        if name in (b"fmt ", b"fact") and num_bytes <= 4096:
            kept.append((name, data.at(place, num_bytes)))
        elif name == b"ds64":
            large = int.from_bytes(data.at(place + 8, 8), "little")
        elif name == b"data":
            claimed: int | None = num_bytes
            if magic == b"RF64" and num_bytes == 0xFFFFFFFF:
                claimed = large
            elif num_bytes >= UNSET:
                claimed = None
            if not kept or kept[0][0] != b"fmt ":
                return None
            return Layout(place, claimed, lambda size: _wav_head(order, kept, size), order=order)
    return None


def _wav_head(order: str, kept: list[tuple[bytes, bytes]], num_bytes: int) -> bytes:
    pack = struct.Struct(">I" if order == "big" else "<I").pack
    chunks = b"".join(name + pack(len(one)) + one + bytes(len(one) & 1) for name, one in kept)
    size = min(num_bytes, 0xFFFFFFFF)
    riff = min(4 + len(chunks) + 8 + num_bytes, 0xFFFFFFFF)
    return (b"RIFX" if order == "big" else b"RIFF") + pack(riff) + b"WAVE" + chunks + b"data" + pack(size)


def _patched(
    data: Bytes, start: int, samples: int, place: int, digits: str, *, added: int = 0
) -> Callable[[int], bytes]:
    """Return a function that makes the header of a recording with another number of bytes at a place.

    Args:
        data: the recording.
        start: place of the header.
        samples: place of the samples.
        place: place of the number.
        digits: its form, as of `struct`.
        added: bytes that it counts besides the samples.
    """
    pack = struct.Struct(digits)

    def head(num_bytes: int) -> bytes:
        whole = bytearray(data.at(start, samples - start))
        pack.pack_into(whole, place - start, min(num_bytes + added, 256**pack.size - 1))
        return bytes(whole)

    return head


def _aiff(data: Bytes, start: int) -> Layout | None:
    for name, place, num_bytes in _chunks(data, start + 12, "big"):
        if name == b"SSND":
            offset = int.from_bytes(data.at(place, 4), "big")
            samples = place + 8 + offset
            if offset > 65536 or samples - start > MOST_HEADER_BYTES:
                return None
            claimed = None if num_bytes >= UNSET else max(0, num_bytes - 8 - offset)
            head = _patched(data, start, samples, place - 4, ">I", added=8 + offset)
            return Layout(samples, claimed, head, order="big")
    return None


def _au(data: Bytes, start: int) -> Layout | None:
    head = data.at(start, 12)
    if len(head) < 12:
        return None
    order = "big" if head.startswith(b".snd") else "little"
    samples, claimed = start + number(head[4:8], order), number(head[8:12], order)
    if samples - start > MOST_HEADER_BYTES:
        return None
    patched = _patched(data, start, samples, start + 8, ">I" if order == "big" else "<I")
    return Layout(samples, None if claimed >= UNSET else claimed, patched, has_chunks=False)


def _caf(data: Bytes, start: int) -> Layout | None:
    is_packed = True
    for name, place, num_bytes in _chunks(data, start + 8, "big", 8):
        if name == b"desc":
            is_packed = data.at(place + 8, 4) not in (b"lpcm", b"ulaw", b"alaw")
        elif name == b"data":
            samples = place + 4
            if samples - start > MOST_HEADER_BYTES:
                return None
            claimed = None if num_bytes >= 1 << 63 else max(0, num_bytes - 4)
            head = _patched(data, start, samples, place - 8, ">Q", added=4)
            return Layout(samples, claimed, None if is_packed else head, size_bytes=8, order="big", is_packed=is_packed)
    return None


def _w64(data: Bytes, start: int) -> Layout | None:
    if data.at(start + 24, 16) != W64_WAVE:
        return None
    place = start + 40
    for _ in range(MOST_CHUNKS):
        head = data.at(place, 24)
        if len(head) < 24:
            return None
        num_bytes = int.from_bytes(head[16:], "little")
        if head.startswith(W64_DATA):
            return Layout(place + 24, max(0, num_bytes - 24), None, has_chunks=False)
        if num_bytes < 24:
            return None
        place += num_bytes + 7 & ~7
    return None


NIST_FIELD = re.compile(rb"(?m)^(sample_count|channel_count|sample_n_bytes) -i (\d{1,12})\b")


def _nist(data: Bytes, start: int) -> Layout | None:
    head = data.at(start, 1024)
    size = head[8:16].strip()
    if not size.isdigit() or b"shorten" in head or b"end_head" not in head:
        return None
    fields = {name: int(value) for name, value in NIST_FIELD.findall(head)}
    if b"sample_count" not in fields:
        return Layout(start + int(size), None, None, has_chunks=False)
    frame_bytes = fields.get(b"channel_count", 1) * fields.get(b"sample_n_bytes", 1)
    return Layout(start + int(size), fields[b"sample_count"] * frame_bytes, None, has_chunks=False)


_READERS: dict[str, Callable[[Bytes, int], Layout | None]] = {
    "WAV": _wav,
    "RF64": _wav,
    "AIFF": _aiff,
    "AU": _au,
    "CAF": _caf,
    "W64": _w64,
    "NIST": _nist,
}
