"""Bytes of a recording by their places, for the parsers of containers; tags, padding and other recordings in them."""

import re
from collections.abc import Iterator
from typing import Protocol

WINDOW_BYTES, FAR_BYTES = 256 * 1024, 32 * 1024
"""Bytes that are read at once, and those at a place that does not follow the one before."""
OVERLAP_BYTES = 64
"""More than any pattern is long."""
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


class PlacedReader(Protocol):
    """Any of the readers of `raysp.audio.source`."""

    num_bytes: int

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move the position and return it."""
        ...

    def readinto(self, buffer: memoryview) -> int:
        """Copy the next bytes into `buffer`."""
        ...


class Bytes:
    """Bytes of a recording, read in windows. The position of its reader changes."""

    def __init__(self, reader: PlacedReader) -> None:
        self._reader = reader
        self._start, self._window = 0, b""
        self.num_bytes = reader.num_bytes

    def at(self, place: int, num_bytes: int) -> bytes:
        """Return the bytes at a place; fewer at the end."""
        offset = place - self._start
        if not 0 <= offset <= len(self._window) - num_bytes:
            if num_bytes > WINDOW_BYTES:
                return self._read(place, num_bytes)
            is_next = place <= self._start + len(self._window)
            ahead = WINDOW_BYTES if is_next else FAR_BYTES
            self._start, self._window = place, self._read(place, max(num_bytes, ahead if self._window else 4096))
            offset = 0
            if len(self._window) < num_bytes <= self.num_bytes - place:
                self._window = self._read(place, WINDOW_BYTES)
        return self._window[offset : offset + num_bytes]

    def _read(self, place: int, num_bytes: int) -> bytes:
        buffer = bytearray(max(0, min(num_bytes, self.num_bytes - place)))
        self._reader.seek(place)
        view, done = memoryview(buffer), 0
        while done < len(buffer) and (num_read := self._reader.readinto(view[done:])):
            done += num_read
        return bytes(view[:done])

    def matches(
        self, pattern: "re.Pattern[bytes]", start: int, end: int, literals: tuple[bytes, ...] = ()
    ) -> Iterator[tuple[int, bytes]]:
        """Yield the places and contents of all matches of a pattern between two places.

        Each match contains one of `literals`, if any are given: to search for those is several times faster.
        """
        while start < end:
            num_bytes = min(4 * WINDOW_BYTES, end - start)
            window = self.at(start, num_bytes) if num_bytes <= WINDOW_BYTES else self._read(start, num_bytes)
            if not window:
                return
            is_last = start + len(window) >= end
            limit = len(window) if is_last else max(1, len(window) - OVERLAP_BYTES)
            has_literal = not literals or any(literal in window for literal in literals)
            for found in pattern.finditer(window) if has_literal else ():
                if found.start() < limit:
                    yield start + found.start(), found.group()
            start = end if is_last else start + limit


def find_beginning(data: Bytes, start: int, end: int) -> int | None:
    """Return the start of the first recording between two places."""
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
