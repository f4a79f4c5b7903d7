"""Bytes of a recording: in memory or in ranges of a file, parts of them as files, and tags around the audio."""

import re
from collections.abc import Iterator
from os import SEEK_CUR, SEEK_END, SEEK_SET

from raysp.audio.waveforms import Recording, SupportsRead, is_file, require_recording
from raysp.errors import AudioError

FARTHEST_SEEK = 2**62
HEADER_READ_BYTES = 64
"""Most bytes of a header that are read at once, and must come at once."""
FIRST_READ_BYTES, MOST_READ_BYTES = 64 * 1024, 1024 * 1024  # reads of a file: small for a header, growing for a stream
SEARCHED_BYTES, OVERLAP_BYTES = 256 * 1024, 64
ID3V1_BYTES = 128
MOST_LYRICS_BYTES = 5200
"""Largest Lyrics3 tag of the first version, with its beginning and end."""
BEGINNING = re.compile(
    rb"fLaC[\x00\x80]\x00\x00\x22|OggS\x00[\x02\x06]|RIFF....WAVE|RIFX....WAVE|RF64....WAVE|FORM....AIF[FC]"
    rb"|riff\x2e\x91\xcf\x11\xa5\xd6|\.snd\x00\x00|caff\x00\x01\x00\x00|NIST_1A\n|\x1aE\xdf\xa3[\x01\x80-\xff]"
    rb"|\x00\x00\x00[\x08-\x80]ftyp|0&\xb2u\x8ef\xcf\x11",
    re.DOTALL,
)
"""First bytes of recordings, which no samples contain by chance."""


class RecordingBytes:
    """Bytes of a recording in memory, read in place."""

    def __init__(self, view: memoryview) -> None:
        self._view = view
        self.num_bytes = len(view)
        self.error: Exception | None = None
        """Exception of reading a file, which decoders see as the end of the file."""

    def some(self, place: int, most: int) -> memoryview:
        """Return at least one and at most `most` bytes at a place; empty at the end, or after the file has failed."""
        return self._view[place : place + most]

    def at(self, place: int, num_bytes: int) -> bytes:
        """Return the bytes at a place; fewer at the end."""
        parts = []
        while num_bytes > 0 and (part := self.some(place, num_bytes)):
            parts.append(bytes(part))
            place, num_bytes = place + len(part), num_bytes - len(part)
        return b"".join(parts)

    def find(self, pattern: "re.Pattern[bytes]", start: int, end: int) -> int | None:
        """Return the place of the first match between two places."""
        while start < end:
            window = self.at(start, min(SEARCHED_BYTES, end - start))
            if match := pattern.search(window):
                return start + match.start()
            if start + len(window) >= end or len(window) <= OVERLAP_BYTES:
                return None
            start += len(window) - OVERLAP_BYTES
        return None


class RangedBytes(RecordingBytes):
    """Bytes of a file, read in ranges, with read-ahead. Its exceptions are stored in `error`, not raised."""

    def __init__(self, file: SupportsRead) -> None:
        super().__init__(memoryview(b""))
        self._file = file
        self._start = 0
        self._ahead = FIRST_READ_BYTES
        self.num_bytes = file.seek(0, SEEK_END)

    def some(self, place: int, most: int) -> memoryview:
        """Return some of the bytes at a place."""
        offset = place - self._start
        if not 0 <= offset < len(self._view):
            if self.error or not 0 <= place < self.num_bytes:
                return memoryview(b"")
            is_next = len(self._view) and offset == len(self._view)
            self._ahead = min(2 * self._ahead, MOST_READ_BYTES) if is_next else FIRST_READ_BYTES
            self._start, offset = place, 0
            try:
                self._file.seek(place, SEEK_SET)
                self._view = memoryview(self._file.read(min(self._ahead, self.num_bytes - place)))
            except Exception as error:
                self._view, self.error = memoryview(b""), error
        return self._view[offset : offset + most]


def bytes_of(audio: Recording | None) -> RecordingBytes:
    """Return the bytes of a recording, without a copy.

    Raises:
        AudioError: `no_audio` if it is None or empty.
    """
    recording = require_recording(audio)
    data = RangedBytes(recording) if is_file(recording) else RecordingBytes(memoryview(recording).cast("B"))
    if data.num_bytes == 0:
        raise AudioError("no_audio", "found 0 bytes; expected the bytes of a recording")
    return data


class Reader:
    """A seekable file over the bytes between two places, after other first bytes.

    It raises nothing in the callbacks of libsndfile, since cffi prints exceptions there.
    """

    def __init__(self, data: RecordingBytes, start: int, end: int, head: bytes = b"") -> None:
        self._data, self._head = data, head
        self._shift = start - len(head)
        """Place in the recording of the first byte, as if no head replaced it."""
        self._position = 0
        self.num_bytes = end - self._shift
        self.single_from = end
        """Place from which on buffers get byte after byte, so that `place` shows what a decoder looked at last."""

    @property
    def place(self) -> int:
        """Place in the recording up to which it is read."""
        return self._shift + min(self._position, self.num_bytes)

    def seek(self, offset: int, whence: int = SEEK_SET) -> int:
        """Move the position and return it. An invalid position leaves it unchanged, as a failed lseek does."""
        start = {SEEK_SET: 0, SEEK_CUR: self._position, SEEK_END: self.num_bytes}[whence]
        if 0 <= start + offset < FARTHEST_SEEK:
            self._position = start + offset
        return self._position

    def tell(self) -> int:
        """Return the position of the next byte."""
        return self._position

    def readinto(self, buffer: memoryview) -> int:
        """Copy the next bytes into `buffer`. Returns their number."""
        done, num_bytes = 0, min(len(buffer), self.num_bytes - self._position)
        if self.place + num_bytes > self.single_from and len(buffer) > HEADER_READ_BYTES:
            num_bytes = min(num_bytes, max(1, self.single_from - self.place))
        while done < num_bytes:
            if self._position < len(self._head):
                part = memoryview(self._head)[self._position :][: num_bytes - done]
            else:
                part = self._data.some(self._shift + self._position, num_bytes - done)
            if not part:
                break
            buffer[done : done + len(part)] = part
            done += len(part)
            self._position += len(part)
        return done


def skip_tags(data: RecordingBytes, place: int, end: int) -> int:
    """Return the place after the tags that begin at a place: ID3v2, and APE tags with a header."""
    while place < end:
        head = data.at(place, 32)
        if head.startswith(b"ID3") and len(head) >= 10 and head[3] != 0xFF and max(head[6:10]) <= 0x7F:
            place += 10 + _synchsafe(head[6:10]) + (10 if head[5] & 0x10 else 0)
        elif head.startswith(b"APETAGEX") and len(head) == 32:
            place += 32 + int.from_bytes(head[12:16], "little")
        else:
            return place
    return min(place, end)


def skip_zeros(data: RecordingBytes, place: int, end: int) -> int:
    """Return the place of the first byte from a place on that is not zero."""
    while place < end and (part := data.at(place, min(SEARCHED_BYTES, end - place))):
        if rest := part.lstrip(b"\0"):
            return place + len(part) - len(rest)
        place += len(part)
    return end


def strip_tags(data: RecordingBytes, start: int, end: int, *, zeros: bool = True) -> int:
    """Return the end of the data between two places without the tags at its end, and without its zeros."""
    while end > start:
        begin = max(start, end - MOST_LYRICS_BYTES)
        tail = data.at(begin, end - begin)
        stripped = max(start, next((end - num_bytes for num_bytes in _ending(tail)), end))
        while zeros and stripped > start:
            part = data.at(max(start, stripped - SEARCHED_BYTES), min(SEARCHED_BYTES, stripped - start))
            kept = part.rstrip(b"\0")
            stripped -= len(part) - len(kept)
            if kept or not part:
                break
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


def _synchsafe(digits: bytes) -> int:
    return digits[0] << 21 | digits[1] << 14 | digits[2] << 7 | digits[3]
