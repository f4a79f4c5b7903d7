"""Recordings as files that PyAV reads, up to the beginning of another stream."""

import re

from raysp.audio.elements import page_end
from raysp.audio.recording_bytes import OVERLAP_BYTES, Reader, RecordingBytes

RESTARTS = {
    "OGG": re.compile(rb"OggS\x00[\x02\x06]"),
    "Matroska": re.compile(rb"\x1aE\xdf\xa3[\x01\x80-\xff]"),
    "ASF": re.compile(rb"0&\xb2u\x8ef\xcf\x11"),
}
"""First bytes of another stream of the same container, after which a demuxer would go on."""


class SequentialFile:
    """A recording as a file that PyAV reads once, up to the beginning of another stream."""

    def __init__(self, data: RecordingBytes, start: int, end: int, restart: "re.Pattern[bytes] | None") -> None:
        self._data, self._place, self._first = data, start, start + 1
        self._restart = restart
        self.end = end
        if restart is RESTARTS["OGG"]:  # streams that are multiplexed begin together
            while data.at(self._first - 1, 6)[5:] in (b"\x02", b"\x06"):
                self._first = page_end(data, self._first - 1) + 1

    def read(self, num_bytes: int) -> bytes:
        """Read at most `num_bytes`."""
        num_bytes = min(num_bytes, self.end - self._place)
        part = self._data.at(self._place, num_bytes + OVERLAP_BYTES if self._restart else num_bytes)
        if self._restart:
            joint = self._restart.search(part, max(0, self._first - self._place))
            if joint is not None and self._place + joint.start() < self.end:
                self.end = self._place + joint.start()
                num_bytes = min(num_bytes, joint.start())
        self._place += min(num_bytes, len(part))
        return part[:num_bytes]


class SeekableFile:
    """A reader as the seekable file that PyAV expects."""

    def __init__(self, reader: Reader) -> None:
        self.seek, self.tell, self._readinto = reader.seek, reader.tell, reader.readinto
        self.end = reader.num_bytes

    def read(self, num_bytes: int) -> bytes:
        """Read at most `num_bytes`."""
        data = bytearray(num_bytes)
        return bytes(data[: self._readinto(memoryview(data))])
