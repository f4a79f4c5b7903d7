"""Data beside the samples of a recording: tags, padding, and the first bytes of another recording."""

import re
from collections.abc import Iterator

from raysp.audio.parsing.reading import Bytes

BLOCK_BYTES = 64 * 1024
ID3V1_BYTES = 128
MOST_LYRICS_BYTES = 5200
"""Largest Lyrics3 tag of the first version, with its beginning and end."""
BEGINNING = re.compile(
    rb"fLaC[\x00\x80]\x00\x00\x22|OggS\x00[\x02\x06]|RIFF....WAVE|RIFX....WAVE|RF64....WAVE|FORM....AIF[FC]"
    rb"|riff\x2e\x91\xcf\x11\xa5\xd6|\.snd\x00\x00|caff\x00\x01\x00\x00|NIST_1A\n|\x1aE\xdf\xa3[\x01\x80-\xff]|\x00\x00\x00[\x08-\x80]ftyp",
    re.DOTALL,
)
"""First bytes of recordings that no samples contain by chance."""
LITERALS = (b"fLaC", b"OggS", b"WAVE", b"AIF", b"riff\x2e", b".snd", b"caff", b"NIST_1A", b"\x1aE\xdf\xa3", b"ftyp")


def find_beginning(data: Bytes, start: int, end: int) -> int | None:
    """Return where the first recording begins between two places."""
    return next((start_of for start_of, _ in data.matches(BEGINNING, start, end, LITERALS)), None)


def begins_recording(data: Bytes, place: int) -> bool:
    """Return whether a recording that is not MPEG begins at a place."""
    return BEGINNING.match(data.at(place, 24)) is not None


def skip_tags(data: Bytes, place: int, end: int) -> int:
    """Return the place behind the tags that begin at a place: ID3v2, and APE tags with a header."""
    while place < end:
        head = data.at(place, 32)
        if (num_bytes := id3v2_bytes(head)) or (num_bytes := _ape_bytes(head)):
            place = min(end, place + num_bytes)
        else:
            return place
    return place


def strip_tags(data: Bytes, start: int, end: int, *, zeros: bool = True) -> int:
    """Return the end of the data between two places without the tags at its end, and without its zeros."""
    while end > start:
        begin = max(start, end - MOST_LYRICS_BYTES)
        stripped = next((end - num_bytes for num_bytes in _ending(data.at(begin, end - begin))), end)
        stripped = _without_zeros(data, start, max(start, stripped)) if zeros else max(start, stripped)
        if stripped == end:
            return end
        end = stripped
    return end


def _ending(tail: bytes) -> Iterator[int]:
    """Yield the bytes of the tag in which data ends, if it ends in one."""
    if tail[-ID3V1_BYTES:].startswith(b"TAG") and len(tail) >= ID3V1_BYTES:
        yield ID3V1_BYTES
    elif tail[-32:].startswith(b"APETAGEX") and len(tail) >= 32:
        yield int.from_bytes(tail[-20:-16], "little") + (32 if tail[-9] & 0x80 else 0)
    elif tail.endswith(b"LYRICS200") and tail[-15:-9].isdigit():
        yield int(tail[-15:-9]) + 15
    elif tail.endswith(b"LYRICSEND") and (begin := tail.rfind(b"LYRICSBEGIN")) >= 0:
        yield len(tail) - begin
    elif tail[-10:].startswith(b"3DI"):
        yield _synchsafe(tail[-4:]) + 20


def _without_zeros(data: Bytes, start: int, end: int) -> int:
    while end > start:
        block = data.at(max(start, end - BLOCK_BYTES), min(BLOCK_BYTES, end - start))
        kept = block.rstrip(b"\x00")
        end -= len(block) - len(kept)
        if kept:
            break
    return end


def id3v2_bytes(head: bytes) -> int:
    """Return the size of the ID3v2 tag that begins with some bytes; 0 if none does."""
    if len(head) < 10 or not head.startswith(b"ID3") or head[3] == 0xFF or max(head[6:10]) > 0x7F:
        return 0
    return 10 + _synchsafe(head[6:10]) + (10 if head[5] & 0x10 else 0)


def _ape_bytes(head: bytes) -> int:
    return 32 + int.from_bytes(head[12:16], "little") if head.startswith(b"APETAGEX") and len(head) == 32 else 0


def _synchsafe(digits: bytes) -> int:
    return digits[0] << 21 | digits[1] << 14 | digits[2] << 7 | digits[3]
