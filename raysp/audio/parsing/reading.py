"""Bytes of a recording by their places, for the parsers of containers."""

import re
from collections.abc import Iterator
from typing import Protocol

WINDOW_BYTES, FAR_BYTES = 256 * 1024, 32 * 1024
"""Bytes that are read at once, and those at a place that does not follow the one before."""
OVERLAP_BYTES = 64
"""More than any pattern is long."""


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
