"""Recordings inside of shards by their row, as `talks-000.parquet#row=17` names them."""

from collections import deque
from collections.abc import Iterator
from threading import Lock

import pyarrow as pa

from raysp.corpus import sources
from raysp.corpus.shards import Options, Piece, Shard, input_id
from raysp.corpus.tables import bytes_of, recording_type
from raysp.errors import AudioError, ShardError, StoreError
from raysp.storage.opened import Entry

HELD_BYTES = 32 * 1024 * 1024
"""Bytes of the batches in memory, for threads that are behind, unless the last two have more."""
FAR_ROWS = 64
"""Rows ahead from which on reading begins anew, in place of going on."""
KINDS = frozenset({"parquet", "arrow", "tar"})
"""Kinds of shards whose rows can be named: each is one file, which holds the recordings."""
EXPECTED = "expected a Parquet, Arrow or tar file with recordings"


class StoredRows:
    """Reader of single rows of shards. The shard read last stays open, and reading goes on after its last row."""

    def __init__(self, storage_options: Options = None) -> None:
        self._storage_options = storage_options
        self._lock = Lock()
        self._rows: _Rows | None = None

    def __call__(self, url: str, entry: Entry, row: int, column: str) -> memoryview:
        """Return the recording of a row, without a copy.

        Args:
            url: url of the shard.
            entry: its file, whose name has the suffix of its kind.
            row: number of the row.
            column: column of the recordings.

        Raises:
            AudioError: `not_found` without such a row, `no_audio` without a recording in it, `not_readable` if the
                shard cannot be read.
            StoreError: the storage fails.
        """
        with self._lock:
            rows, self._rows = self._rows, None  # after an error the shard is opened again
            try:
                if rows is None or rows.key != (url, entry.version, column):
                    rows = _Rows(url, entry, column, self._storage_options)
                recording = rows.read(row)
            except AudioError:
                self._rows = rows
                raise
            except ShardError as error:
                if isinstance(error.__cause__, StoreError):
                    raise error.__cause__ from None
                raise AudioError("not_readable", f"{error}; {EXPECTED}") from None
            self._rows = rows
            return recording


class _Rows:
    """Rows of one shard."""

    def __init__(self, url: str, entry: Entry, column: str, storage_options: Options) -> None:
        self.key = url, entry.version, column
        self._column, self._storage_options = column, storage_options
        kind = sources.kind_of_file(entry.path)
        if kind.name not in KINDS:
            raise ShardError(f"{url}: found a file of the kind {kind.name}")
        survey = sources.survey(kind.name, url, "", storage_options, [column])
        index = survey.schema.get_field_index(column)
        if index < 0 or recording_type(survey.schema.field(index).type) != "bytes":
            raise AudioError("no_audio", f"{url}: has no column {column!r:.200} of recordings; {EXPECTED}")
        identity = input_id(entry.num_bytes, entry.version, survey)
        whole = (Piece(0, survey.num_rows),)
        self._shard = Shard(
            entry.path, url, entry.num_bytes, entry.version, survey.num_rows, identity, whole, kind.name, survey.part
        )
        self._batches: Iterator[pa.Table] = iter(())
        self._next = self._shard.num_rows
        """Number of the row after the last batch."""
        self._held: deque[tuple[int, pa.Table]] = deque()
        """Batches, each with the number of its first row."""

    def read(self, row: int) -> memoryview:
        """Return the recording of a row; raises AudioError and ShardError."""
        if row >= self._shard.num_rows:
            raise AudioError("not_found", f"{self._shard.url}: has {self._shard.num_rows:,} rows; found row={row}")
        while (batch := self._held_with(row)) is None:
            self._read_on(row)
        first, table = batch
        if not (recording := bytes_of(table.column(0)[row - first])):
            raise AudioError("no_audio", f"{self._shard.url}: row {row} holds no bytes of a recording")
        return recording

    def _held_with(self, row: int) -> tuple[int, pa.Table] | None:
        return next((batch for batch in self._held if batch[0] <= row < batch[0] + batch[1].num_rows), None)

    def _read_on(self, row: int) -> None:
        """Read the next batch, or the one that begins with a row if that is behind or far ahead."""
        if not self._next <= row < self._next + FAR_ROWS:
            piece = Piece(row, self._shard.num_rows)
            self._batches = sources.read_batches(self._shard, piece, [self._column], self._storage_options)
            self._next = row
        if (table := next(self._batches, None)) is None:
            raise ShardError(f"{self._shard.url}: ends before row {row}. Copy the shard again")
        self._held.append((self._next, table))
        while len(self._held) > 2 and sum(held.nbytes for _, held in self._held) > HELD_BYTES:
            self._held.popleft()
        self._next += table.num_rows
