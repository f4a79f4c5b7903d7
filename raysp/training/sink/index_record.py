"""Index of the rows to train on: durations, numbers of labels, and why rows are left out; a file a shard in the sink.

Files are named by the content of the shard and by a key of everything else that decides: columns, filters, vocabulary.
So a shard that changed, or another recipe, has another file, and an index is written once.
"""

import hashlib
import io
import json
from collections import Counter
from collections.abc import Generator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from raysp import bounds
from raysp.corpus import sources
from raysp.corpus.shards import Piece, Shard
from raysp.errors import StoreError
from raysp.sink import records, table_files
from raysp.sink.records import Natural
from raysp.storage.store import Store
from raysp.training.sink.indexed_contents import CONTENTS, table_of_contents
from raysp.training.sink.training_record import INDEX

AT_ONCE = 32
"""Files that are read at once; an object store takes some 20 ms for each."""
INDEX_VERSION = 4
"""Version of the files, part of their names."""
TRAINED = ""
"""Reason of rows that are trained on."""

_TYPES: Mapping[str, pa.DataType] = {"seconds": pa.float32(), "num_labels": pa.uint16(), "reason": pa.uint8()}
_SCHEMA = pa.schema([*_TYPES.items(), *CONTENTS])
_REASONS, _CHARACTERS, _TARGETS = b"raysp.reasons", b"raysp.characters", b"raysp.targets"
_RECORDINGS = b"raysp.recordings"
_NO_CHARACTERS: Mapping[str, int] = {}


@dataclass(frozen=True)
class ShardIndex:
    """Index of the rows of one shard.

    Attributes:
        seconds: float32 (num_rows,), duration of each row.
        num_labels: uint16 (num_rows,), labels of each row.
        reason: uint8 (num_rows,), place of the reason in `reasons` for which a row is left out.
        reasons: names of reasons; the first is `TRAINED`.
        counts: occurrences of each character or class in the texts of rows that are trained on.
        targets_digest: hash of the targets of rows that are trained on.
        recordings_digest: hash of the content of their recordings.
        contents: contents of the recordings of all rows, with the columns `CONTENTS`; None: not in memory.
    """

    seconds: npt.NDArray[np.float32] = field(repr=False)
    num_labels: npt.NDArray[np.uint16] = field(repr=False)
    reason: npt.NDArray[np.uint8] = field(repr=False)
    reasons: tuple[str, ...] = (TRAINED,)
    counts: Mapping[str, int] = field(default_factory=dict)
    targets_digest: str = ""
    recordings_digest: str = ""
    contents: pa.Table | None = field(default=None, repr=False)

    @classmethod
    def of(
        cls,
        seconds: Sequence[float],
        num_labels: Sequence[int],
        reasons: Sequence[str],
        counts: Mapping[str, int] = _NO_CHARACTERS,
        targets_digest: str = "",
        recordings_digest: str = "",
        contents: pa.Table | None = None,
    ) -> "ShardIndex":
        """Return the index of rows, each with the reason for which it is left out, or `TRAINED`."""
        names = (TRAINED, *sorted({*reasons} - {TRAINED}))
        place = {name: number for number, name in enumerate(names)}
        return cls(
            np.asarray(seconds, np.float32),
            # Bounded, since a larger number would wrap around.
            np.minimum(np.asarray(num_labels, np.int64), 2**16 - 1).astype(np.uint16),
            np.asarray([place[reason] for reason in reasons], np.uint8),
            names,
            dict(counts),
            targets_digest,
            recordings_digest,
            contents,
        )

    def with_contents(self, contents: pa.Table | None) -> "ShardIndex":
        """Return the same index with other contents, or without any."""
        return replace(self, contents=contents)


def path_of(shard: Shard, key: str) -> str:
    """Return the path of a shard's index.

    Args:
        shard: the shard.
        key: hash of everything besides the shard's content that affects the index.
    """
    return f"{INDEX}{key}/{sources.kind_named(shard.kind).rows_id(shard)}.arrow"


def save(store: Store, shard: Shard, key: str, index: ShardIndex, *, replaces: bool = False) -> None:
    """Write the index of a shard; an existing one stays, as it is the same, unless this one replaces it."""
    contents = table_of_contents([None] * len(index.seconds)) if index.contents is None else index.contents
    arrays = [*(pa.array(getattr(index, name), kind) for name, kind in _TYPES.items()), *contents.columns]
    metadata = {
        _REASONS: json.dumps(index.reasons),
        _CHARACTERS: json.dumps(index.counts),
        _TARGETS: index.targets_digest,
        _RECORDINGS: index.recordings_digest,
    }
    schema = _SCHEMA.with_metadata(metadata)
    file = io.BytesIO()
    with table_files.Writer(file, "zstd") as writer:
        writer.write(pa.table(arrays, schema=schema))
    if replaces:
        store.replace(path_of(shard, key), file.getvalue())
    else:
        store.create(path_of(shard, key), file.getvalue())


def load(store: Store, shard: Shard, key: str) -> ShardIndex:
    """Read the index of a shard.

    Raises:
        StoreError: it is missing, or belongs to another shard.
    """
    path, remedy = path_of(shard, key), "remove this index, and run again"
    table = pa.concat_tables(table_files.read(store, path, remedy, _SCHEMA))
    try:
        return _index_of(table, shard.num_rows)
    except (KeyError, ValueError) as error:
        raise StoreError(
            f"{store.url}/{path}: not the index of {shard.name} ({bounds.plain(error)}); {remedy}"
        ) from error


def _index_of(table: pa.Table, num_rows: int) -> ShardIndex:
    metadata = table.schema.metadata or {}
    reasons, counts = (
        records.parse(metadata[_REASONS], list[str]),
        records.parse(metadata[_CHARACTERS], dict[str, Natural]),
    )
    seconds, num_labels, reason = (table.column(name).to_numpy() for name in _TYPES)
    if table.num_rows != num_rows:
        raise ValueError(f"found {table.num_rows} rows, expected {num_rows}")
    if any(table.column(name).null_count for name in _TYPES) or not np.isfinite(seconds).all() or (seconds < 0).any():
        raise ValueError("a duration or a number of labels is not one")
    if reason.max(initial=0) >= len(reasons):
        raise ValueError("a reason is not among those listed")
    digests = metadata[_TARGETS].decode(), metadata[_RECORDINGS].decode()
    contents = table.select(CONTENTS.names)
    return ShardIndex(seconds, num_labels, reason, tuple(reasons), counts, *digests, contents)


def missing(store: Store, shards: Iterable[Shard], key: str) -> list[Shard]:
    """Return the shards without an index."""
    stored = {entry.path for entry in store.list(f"{INDEX}{key}/")}
    return [shard for shard in shards if path_of(shard, key) not in stored]


@dataclass(frozen=True)
class CorpusIndex:
    """Index of a whole corpus, whose rows are counted over its shards in order.

    Attributes:
        shards: the shards.
        first_rows: int64 (num_shards + 1,), number of the first row of each shard, and the number of rows last.
        piece_rows: int64 (num_pieces + 1,), the same for pieces.
        seconds: float32 (num_rows,), durations; 0 for rows that are left out.
        num_labels: uint16 (num_rows,).
        left_out: number of rows that are left out, by reason.
        counts: occurrences of each character or class.
        targets_digest: hash of the targets of all rows that are trained on.
        recordings_digest: hash of the content of their recordings.
    """

    shards: Sequence[Shard] = field(repr=False)
    first_rows: npt.NDArray[np.int64] = field(repr=False)
    piece_rows: npt.NDArray[np.int64] = field(repr=False)
    seconds: npt.NDArray[np.float32] = field(repr=False)
    num_labels: npt.NDArray[np.uint16] = field(repr=False)
    left_out: Mapping[str, int]
    counts: Mapping[str, int] = field(repr=False)
    targets_digest: str = ""
    recordings_digest: str = ""

    def piece(self, number: int) -> tuple[Shard, Piece]:
        """Return a piece by its number, with its shard."""
        first = int(self.piece_rows[number])
        place = int(np.searchsorted(self.first_rows, first, side="right")) - 1
        while self.first_rows[place + 1] == self.first_rows[place]:  # shards without rows
            place += 1
        shard, start = self.shards[place], int(self.first_rows[place])
        return shard, Piece(first - start, int(self.piece_rows[number + 1]) - start)

    def place_of(self, row: int) -> tuple[str, int]:
        """Return the name of a row's shard, and the row's number in it."""
        place = int(np.searchsorted(self.first_rows, row, side="right")) - 1
        return self.shards[place].name, row - int(self.first_rows[place])


def combine(indexed: Iterable[tuple[Shard, ShardIndex]]) -> CorpusIndex:
    """Return the index of a corpus from the indexes of its shards, in order."""
    shards: list[Shard] = []
    seconds: list[npt.NDArray[np.float32]] = [np.zeros(0, np.float32)]
    labels: list[npt.NDArray[np.uint16]] = [np.zeros(0, np.uint16)]
    first_rows, piece_rows = [0], [0]
    left_out: Counter[str] = Counter()
    counted: Counter[str] = Counter()
    targets, recordings = hashlib.sha256(), hashlib.sha256()
    for shard, index in indexed:
        targets.update(index.targets_digest.encode())
        recordings.update(index.recordings_digest.encode())
        shards.append(shard)
        seconds.append(np.where(index.reason == 0, index.seconds, np.float32(0)))
        labels.append(index.num_labels)
        piece_rows += [first_rows[-1] + piece.end for piece in shard.pieces if piece.num_rows]
        first_rows.append(first_rows[-1] + shard.num_rows)
        counts = np.bincount(index.reason, minlength=len(index.reasons)).tolist()
        left_out.update({name: count for name, count in zip(index.reasons, counts, strict=True) if name and count})
        counted.update(index.counts)
    return CorpusIndex(
        shards,
        np.asarray(first_rows, np.int64),
        np.asarray(piece_rows, np.int64),
        np.concatenate(seconds),
        np.concatenate(labels),
        dict(left_out),
        dict(counted),
        targets.hexdigest()[:16],
        recordings.hexdigest()[:16],
    )


def load_all(store: Store, shards: Sequence[Shard], key: str) -> Generator[tuple[Shard, ShardIndex]]:
    """Yield the shards with their indexes, in order."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield from zip(shards, pool.map(partial(load, store, key=key), shards), strict=True)
