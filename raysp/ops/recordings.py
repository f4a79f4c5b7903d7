"""The recordings of a piece: bytes in the table, or files by path, access to which may be denied.

Their claimed durations and numbers of channels are read from their headers before decoding.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from itertools import islice, pairwise

import pyarrow as pa

from raysp.audio import AudioHeader, Excerpt, Recording, SupportsRead
from raysp.bounds import MOST_CHANNELS
from raysp.corpus.shards import has_exact_seeks
from raysp.corpus.tables import bytes_of, path_of, paths_of
from raysp.errors import AudioError, StoreError
from raysp.ops.rows import OK, RowStatus
from raysp.storage.audio_root import HEAD_BYTES, AudioRoot, RowPath
from raysp.storage.store import ArchivedError, RefusedError, join_url

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
        """Return the error of a row with a recording to which access is denied.

        Raises:
            StoreError: access to every tried recording is denied.
        """
        self.has_read = self.has_read or self._reads_another(path, error)
        reason = str(error).partition(";")[0]
        remedy = (
            "it is archived: restore it"
            if isinstance(error, ArchivedError)
            else "give permission to read this recording"
        )
        return AudioError("not_readable", f"{reason}; {remedy} and run raysp retry")

    def _reads_another(self, path: str, error: RefusedError) -> bool:
        """Return whether the first byte of another recording can be read; False if there are too few to decide.

        Raises:
            StoreError: access to them is denied too.
        """
        tried = 0
        others = [other for other in dict.fromkeys(self.paths) if other != path]
        for other in others[:: max(1, -(-len(others) // MOST_TRIED))]:  # evenly spaced over the piece
            try:
                self.root.open(other).read(1)
            except RefusedError:
                tried += 1
                continue
            except AudioError:  # missing, or not allowed
                continue
            return True
        if tried >= FEW or self.root.is_refused():
            state = "archived" if isinstance(error, ArchivedError) else "denied"
            raise StoreError(
                f"{error}. Access to all {tried + 1} recordings tried in {self.root.url} is {state}"
            ) from error
        return False


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


WHOLE_BYTES = 1024 * 1024
"""Largest size of a file that is read completely before it is decoded."""
AHEAD_BYTES = 32 * 1024 * 1024
AT_ONCE = 8
"""Files opened concurrently."""
MOST_AHEAD = 64

Opened = memoryview | SupportsRead | AudioError


class Recordings:
    """Recordings by the index of their row, read lazily.

    Args:
        rows: source columns; the audio has a type of `raysp.corpus.tables`.
        audio: column of the recordings.
        root: root folder of paths; None: paths are not allowed.
        excerpt_columns: columns of offset and duration in seconds, which select a part of each file; a null offset is
            its start, a null duration extends to its end.
    """

    def __init__(
        self, rows: pa.Table, audio: str, root: AudioRoot | None = None, excerpt_columns: Sequence[str] = ()
    ) -> None:
        self.column = rows.column(audio)
        self.root = root
        times: list[list[float | None]] = [rows.column(name).to_pylist() for name in excerpt_columns] or [[], []]
        self.offsets, self.durations = times
        self._read: dict[int, tuple[str, str]] = {}

    def ahead(self, indexes: Iterable[int], head_bytes: int = HEAD_BYTES) -> Iterator[tuple[int, Opened]]:
        """Yield indexes with their recordings or errors, in the order of `indexes`.

        A few threads open files and read their first bytes, at most `AHEAD_BYTES` ahead of the consumer.

        Raises:
            StoreError: the storage fails, or denies access to all recordings.
        """
        if self.root is None:
            yield from ((index, self._opened(index, head_bytes)) for index in indexes)
            return
        rest = iter(indexes)
        pool = ThreadPoolExecutor(AT_ONCE)
        try:
            waiting: deque[tuple[int, Future[Opened]]] = deque(
                (index, pool.submit(self._opened, index, head_bytes))
                for index in islice(rest, min(MOST_AHEAD, AHEAD_BYTES // head_bytes))
            )
            while waiting:
                index, future = waiting.popleft()
                yield index, future.result()
                if (following := next(rest, None)) is not None:
                    waiting.append((following, pool.submit(self._opened, following, head_bytes)))
        finally:
            # Without waiting, since a hanging read must not block a consumer that stops early.
            pool.shutdown(wait=False, cancel_futures=True)

    def _opened(self, index: int, head_bytes: int) -> Opened:
        try:
            return self.get(index, head_bytes)
        except AudioError as error:
            return error

    def get(self, index: int, head_bytes: int = HEAD_BYTES) -> memoryview | SupportsRead:
        """Return the stored bytes without a copy, or an open file; all bytes of a file of at most `head_bytes`.

        Raises:
            AudioError: `no_audio`, `path_not_allowed`, `not_found` or `not_readable`.
            StoreError: the storage fails, or denies access to all recordings.
        """
        embedded = bytes_of(self.column[index])
        if not embedded and (path := self.path(index)):
            return self._open(index, path, head_bytes)
        if embedded is None:
            raise AudioError("no_audio", "null; expected the bytes of an audio file")
        return embedded

    def excerpt(
        self, index: int, audio: memoryview | SupportsRead | None = None, *, channel: int | None = None
    ) -> Excerpt:
        """Return a recording, `audio` or read by `get`, with its selected part; raises the errors of `get`."""
        audio = self.get(index) if audio is None else audio
        if not self.offsets:
            return Excerpt(audio, channel=channel)
        path, version = self.identity(index)
        key = path and f"{version} {path}"
        return Excerpt(audio, self.offsets[index] or 0.0, self.durations[index], channel, key)

    def path(self, index: int) -> str | None:
        """Return the path of a recording; None without one."""
        return path_of(self.column[index])

    @cached_property
    def are_sequential(self) -> bool:
        """Whether most rows are parts of a recording, or of a shard, that is read from its beginning on."""
        if not self.offsets:
            return False
        files = [_file_read_through(path) for path in paths_of(self.column) if path]
        return 2 * sum(file is not None and file == later for file, later in pairwise(files)) >= len(files) > 1

    def name(self, index: int) -> str | None:
        """Return the file name in the path of a recording; None without a path."""
        path = self.path(index)
        return path.rpartition("/")[2] or None if path else None

    def _open(self, index: int, path: str, head_bytes: int) -> memoryview | SupportsRead:
        if self.root is None:
            raise AudioError(
                "path_not_allowed",
                f"no bytes, only the path {path!r:.200}; embed the audio, or allow a folder with source.audio_root",
            )
        try:
            file = self.root.open(path, head_bytes)
        except RefusedError as error:
            raise self._refusals.judge(path, error) from None
        # A row may be opened twice, for its length and for its samples, which must be of one version.
        if self._read.setdefault(index, (file.path, file.version)) != (file.path, file.version):
            raise StoreError(f"{join_url(self.root.url, file.path)}: it was replaced while it was read; run again")
        if file.is_whole:
            self._refusals.has_read = True
            return memoryview(file.head)
        return RefusableFile(file, path, self._refusals)

    def file_of(self, index: int) -> str | int:
        """Return the path of a recording of which rows are parts; else the index."""
        return (self.path(index) if self.offsets else None) or index

    def share(self, opened: int, index: int) -> None:
        """Record that a row is a part of the recording that was opened for another row."""
        if opened in self._read:
            self._read[index] = self._read[opened]

    def identity(self, index: int) -> tuple[str, str] | tuple[None, None]:
        """Return the path and version of the file that was read for a row; (None, None) if no file was read."""
        return self._read.get(index, (None, None))

    @cached_property
    def _refusals(self) -> Refusals:
        assert self.root is not None
        return Refusals(self.root, [path for path in paths_of(self.column) if path])


def _file_read_through(path: str) -> str | None:
    """Return the file that is read from its beginning on to read a recording; None for one with exact seeks."""
    row = RowPath.parse(path)
    return row.shard if row else None if has_exact_seeks(path) else path


ReadHeaders = Callable[..., Iterator[AudioHeader | AudioError]]


def read_claims(
    recordings: Recordings,
    statuses: Sequence[RowStatus],
    read_headers: ReadHeaders,
    each_channel: bool,
    *,
    are_counted: bool = False,
) -> tuple[list[float], list[int]]:
    """Return seconds of audio from the manifest, else from headers; and numbers of labelled channels.

    Seconds are 0 if unknown: decoding reports the error. If each channel is labelled, all headers are read, and a row
    without a valid header fails.

    Args:
        recordings: the recordings.
        statuses: outcomes of their rows.
        read_headers: `raysp.audio.read_headers`, or an equivalent.
        each_channel: whether each channel is labelled.
        are_counted: whether seconds that headers only estimate count as unknown.
    """
    is_ok = [row_status.status == OK for row_status in statuses]
    durations = recordings.durations or [None] * len(statuses)
    claimed = [duration if ok else 0.0 for duration, ok in zip(durations, is_ok, strict=True)]
    seconds, channels = [duration or 0.0 for duration in claimed], [1] * len(statuses)
    unread = [i for i, ok in enumerate(is_ok) if ok and (each_channel or claimed[i] is None)]
    readable: list[int] = []

    def present() -> Iterator[Recording]:
        for index, recording in recordings.ahead(unread):
            if not isinstance(recording, AudioError):
                readable.append(index)
                yield recording

    for place, header in enumerate(read_headers(present(), counted=are_counted)):
        index = readable[place]
        if isinstance(header, AudioError):
            if each_channel:
                statuses[index].fail(header.error_type, str(header))
            continue
        if claimed[index] is None and (header.num_frames is not None or not are_counted):
            seconds[index] = header.seconds
        if each_channel and header.channels > MOST_CHANNELS:
            statuses[index].fail(
                "invalid_audio",
                f"{header.channels} channels; channel='each' labels at most {MOST_CHANNELS}: choose one by "
                "Decode(channel=INDEX), or all of them mixed by channel='mean'",
            )
        elif each_channel:
            channels[index] = header.channels
    return [s if 0 <= s < math.inf else 0.0 for s in seconds], channels
