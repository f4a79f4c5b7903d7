"""Whether storage refuses one recording, which is an error row, or every recording, which is not."""

from collections.abc import Iterator, Sequence

from raysp.audio import SupportsRead
from raysp.errors import AudioError, StoreError
from raysp.storage.audio_root import AudioRoot
from raysp.storage.store import RefusedError

MOST_TRIED = 64
"""Other recordings that are tried before all of a folder is taken to be refused."""
FEW = 8
"""Where no more recordings than these can be tried, a listing of the folder decides."""


class Refusals:
    """Judge refusals by the other recordings of the same piece.

    Credentials without any permission are refused like an object that is closed to one user. What tells them apart is
    that another recording of the same folder can be read.

    Args:
        root: the folder.
        paths: of the piece's recordings, as its rows name them.
    """

    def __init__(self, root: AudioRoot, paths: Sequence[str]) -> None:
        self.root = root
        self.paths = paths
        self.has_read = False
        """Whether any recording of the folder was read."""

    def judge(self, path: str, error: RefusedError) -> AudioError:
        """Return the error of the row whose recording is refused.

        Raises:
            StoreError: every recording that was tried is refused.
        """
        self.has_read = self.has_read or self._reads_another(path, error)
        reason = str(error).partition(";")[0]
        return AudioError("not_readable", f"{reason}; give permission to read this recording and run raysp retry")

    def _reads_another(self, path: str, error: RefusedError) -> bool:
        """Read the beginnings of other recordings until one can be read; False where there are too few to decide.

        Raises:
            StoreError: they are refused as well.
        """
        tried = 0
        for other in self._others(path):
            try:
                self.root.open(other).read(1)
            except RefusedError:
                tried += 1
                continue
            except AudioError:  # not there, or not allowed
                continue
            return True
        if tried >= FEW or self.root.is_refused():
            raise StoreError(f"{error}. All of {tried + 1} recordings of {self.root.url} are refused") from error
        return False

    def _others(self, path: str) -> Iterator[str]:
        """Yield other paths, spread evenly over the piece."""
        others = [one for one in dict.fromkeys(self.paths) if one != path]
        step = max(1, -(-len(others) // MOST_TRIED))
        yield from others[::step]


class RefusableFile:
    """A recording whose refusal while it is read becomes the error of its row."""

    def __init__(self, file: SupportsRead, path: str, refusals: Refusals) -> None:
        self._file = file
        self._path = path
        self._refusals = refusals

    def read(self, num_bytes: int, /) -> bytes:
        """Read at most `num_bytes`.

        Raises:
            AudioError: `not_readable`.
            StoreError: the storage fails, or refuses everything.
        """
        try:
            data = self._file.read(num_bytes)
        except RefusedError as error:
            raise self._refusals.judge(self._path, error) from None
        self._refusals.has_read = True
        return data

    def seek(self, offset: int, whence: int, /) -> int:
        """Move."""
        return self._file.seek(offset, whence)
