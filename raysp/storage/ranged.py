"""Random access to a file of an object store by ranged requests.

Parquet is read in steps of a megabyte, and a request takes the same time for 64 KiB as for a few megabytes. Each
request of a sequential read therefore fetches more than the one before, up to `MAX_WINDOW_BYTES`.
"""

import io
from collections.abc import Callable

import pyarrow as pa

MIN_WINDOW_BYTES = 64 * 1024
MAX_WINDOW_BYTES = 8 * 1024 * 1024
MAX_WINDOWS = 4  # columns that are read in parallel, each sequentially

Fetch = Callable[[int, int], bytes]
"""A function of (start, end) that returns exactly the bytes `start <= i < end` of a file, or raises."""


class RangedFile(io.RawIOBase):
    """A seekable file over `fetch` that caches the last `MAX_WINDOWS` windows.

    Args:
        num_bytes: size of the whole file.
        fetch: fetches a range.
        tail: last bytes of the file, if known.
        head: first bytes of the file, if known.
    """

    def __init__(self, num_bytes: int, fetch: Fetch, tail: bytes = b"", head: bytes = b"") -> None:
        self._num_bytes = num_bytes
        self._fetch = fetch
        self._position = 0
        self._ends = ((0, head), (num_bytes - len(tail), tail))
        self._windows: list[tuple[int, bytes]] = []  # the newest is last

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position of the next read."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move the position and return it, without a request."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._num_bytes}[whence]
        self._position = max(0, start + offset)
        return self._position

    def read(self, size: int = -1) -> bytes:
        """Read at most `size` bytes. Fewer are returned only at the end of the file."""
        end = self._num_bytes if size < 0 else min(self._position + size, self._num_bytes)
        parts: list[bytes] = []
        while self._position < end:
            start, window = self._window(self._position, end)
            parts.append(window[self._position - start : end - start])
            self._position += len(parts[-1])
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _window(self, first: int, end: int) -> tuple[int, bytes]:
        """Return a window that contains byte `first`, fetching it if necessary."""
        for window in (*self._ends, *self._windows):
            if window[0] <= first < window[0] + len(window[1]):
                return window
        behind = next((w for w in self._windows if w[0] + len(w[1]) == first), None)
        num_bytes = max(end - first, MIN_WINDOW_BYTES)
        if behind is not None:
            self._windows.remove(behind)
            num_bytes = max(num_bytes, 2 * len(behind[1]))
        last = min(first + min(num_bytes, MAX_WINDOW_BYTES), self._num_bytes)
        window = (first, self._fetch(first, last))
        self._windows = [*self._windows[-(MAX_WINDOWS - 1) :], window]
        return window


def open_ranged(num_bytes: int, fetch: Fetch, tail: bytes = b"") -> pa.NativeFile:
    """Open a `RangedFile` for pyarrow."""
    return pa.PythonFile(RangedFile(num_bytes, fetch, tail), mode="r")
