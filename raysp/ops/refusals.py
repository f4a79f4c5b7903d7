"""Denied access to recordings: to one recording, which becomes an error row, or to all, which raises StoreError."""

from collections.abc import Iterator, Sequence

from raysp.audio import SupportsRead
from raysp.errors import AudioError, StoreError
from raysp.storage.audio_root import AudioRoot
from raysp.storage.store import RefusedError

MOST_TRIED = 64
"""Largest number of other recordings tried before access to the whole folder counts as denied."""
FEW = 8
"""If fewer recordings than this can be tried, a listing of the folder decides."""


class Refusals:
    """Classification of denied access by the other recordings of the same piece.

    Storage denies credentials without any permission in the same way as access to a single private object. The
    difference is whether another recording of the same folder can be read.

    Args:
        root: the folder.
        paths: paths of the piece's recordings, as in its rows.
    """

    def __init__(self, root: AudioRoot, paths: Sequence[str]) -> None:
        self.root = root
        self.paths = paths
        self.has_read = False
        """Whether any recording of the folder was read."""

    def judge(self, path: str, error: RefusedError) -> AudioError:
        """Return the error of a row to whose recording access is denied.

        Raises:
            StoreError: access to every tried recording is denied.
        """
        self.has_read = self.has_read or self._reads_another(path, error)
        reason = str(error).partition(";")[0]
        return AudioError("not_readable", f"{reason}; give permission to read this recording and run raysp retry")

    def _reads_another(self, path: str, error: RefusedError) -> bool:
        """Return whether the first byte of another recording can be read; False if there are too few to decide.

        Raises:
            StoreError: access to them is denied too.
        """
        tried = 0
        for other in self._others(path):
            try:
                self.root.open(other).read(1)
            except RefusedError:
                tried += 1
                continue
            except AudioError:  # missing, or not allowed
                continue
            return True
        if tried >= FEW or self.root.is_refused():
            raise StoreError(
                f"{error}. Access to all {tried + 1} recordings tried in {self.root.url} is denied"
            ) from error
        return False

    def _others(self, path: str) -> Iterator[str]:
        """Yield other paths, evenly spaced over the piece."""
        others = [one for one in dict.fromkeys(self.paths) if one != path]
        step = max(1, -(-len(others) // MOST_TRIED))
        yield from others[::step]


class RefusableFile:
    """A file for which denied access during a read becomes the error of its row."""

    def __init__(self, file: SupportsRead, path: str, refusals: Refusals) -> None:
        self._file = file
        self._path = path
        self._refusals = refusals

    def read(self, num_bytes: int, /) -> bytes:
        """Read at most `num_bytes`.

        Raises:
            AudioError: `not_readable`.
            StoreError: the storage fails, or denies access to all recordings.
        """
        try:
            data = self._file.read(num_bytes)
        except RefusedError as error:
            raise self._refusals.judge(self._path, error) from None
        self._refusals.has_read = True
        return data

    def seek(self, offset: int, whence: int, /) -> int:
        """Move the position, and return it."""
        return self._file.seek(offset, whence)
